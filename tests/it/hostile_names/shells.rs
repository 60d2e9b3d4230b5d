//! Hostile names through every login shell, by the very text that haul gives to it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use haul::engine::probe::{HashProgram, hash_file};
use haul::model::checksum::{Chain, Checksum, Method};
use haul::model::exec::{ErrorStream, Program, Said, Streams, find_line, start_script};
use haul::model::merge_script::MergeState;
use haul::model::remote_path::RemotePath;
use haul::model::run_id::RunId;
use haul::model::shell::COMMAND;
use tempfile::TempDir;

use super::generate::{CANARY, is_file_name, names, worst};
use crate::exec::stage::{Stage, outcome};
use crate::harness::sshd::write_script;
use crate::scripts::scene::Scene;
use crate::scripts::shells::{LOGIN_SHELLS, MERGING_SHELLS, Machine, SHELLS, find};

const NAMES: usize = 10_000;
/// Arguments of one command.
const BATCH: usize = 500;

/// A directory with a file of each name, which holds the name, and a program beside it that
/// must never run.
struct Ground {
    directory: TempDir,
    programs: TempDir,
    files: usize,
}

impl Ground {
    fn new(names: &[Vec<u8>]) -> Ground {
        let (directory, programs) =
            (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
        let ran = programs.path().join("ran");
        let text = format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\n", ran.display());
        write_script(&programs.path().join(CANARY), &text);
        let files = names.iter().filter(|name| is_file_name(name));
        let mut count = 0;
        for name in files {
            let content = [&name[..], b"\0"].concat();
            std::fs::write(directory.path().join(OsStr::from_bytes(name)), content).expect("a file");
            count += 1;
        }
        Ground { directory, programs, files: count }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Nothing has run, and nothing was made or removed.
    #[track_caller]
    fn assert_untouched(&self, context: &str) {
        let ran = std::fs::read(self.programs.path().join("ran")).unwrap_or_default();
        assert!(ran.is_empty(), "{context}: a name ran as a command: {}", String::from_utf8_lossy(&ran));
        assert_eq!(std::fs::read_dir(self.path()).expect("a directory").count(), self.files, "{context}");
    }

    /// What `program` prints, run as haul runs it by an account's login shell.
    fn run(&self, machine: &Machine, login: &str, program: &Program) -> Vec<u8> {
        program.check().expect("a program");
        let nonce = RunId::from_random(0x600d);
        let streams = Streams { stdin: true, stdout: true, stderr: ErrorStream::Own };
        let script = start_script(program, &streams, nonce);
        let mut command = machine.command(find(login));
        if login == "busybox" {
            command.arg("sh");
        }
        let path = format!("{}:{}", machine.path(), self.programs.path().display());
        let mut child = command
            .args(["-c", COMMAND])
            .env("PATH", path)
            .current_dir(self.programs.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the login shell runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let writer = std::thread::spawn(move || {
            stdin.write_all(script.line().as_bytes()).expect("the script is taken");
            stdin.write_all(b"go\n").expect("the word to start is taken");
        });
        let output = child.wait_with_output().expect("the end");
        writer.join().expect("the writer ends");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{login}");
        assert!(output.status.success(), "{login}: {:?}", output.status);
        let (said, rest) = find_line(&output.stdout, &Said::mark(nonce)).expect("what the script says");
        assert!(matches!(Said::parse(said), Some(Said::Ready { .. })), "{login}: {}", said.escape_ascii());
        output.stdout[rest..].to_vec()
    }

    /// All of `names` as arguments, and those that can be as paths of files.
    fn arguments_arrive(&self, machine: &Machine, login: &str, names: &[Vec<u8>]) {
        let directory = Some(self.path().as_os_str().as_bytes().to_vec());
        // A dash alone is no path to cat.
        let is_path = |name: &&Vec<u8>| is_file_name(name) && name[..] != *b"-";
        let (paths, others): (Vec<_>, Vec<_>) = names.iter().partition(is_path);
        for (program, first, names) in [("cat", "--", paths), ("printf", "%s\\000", others)] {
            for names in names.chunks(BATCH) {
                let arguments = [first.as_bytes()].into_iter().chain(names.iter().map(|name| &name[..]));
                let program = Program {
                    name: program.into(),
                    arguments: arguments.map(<[u8]>::to_vec).collect(),
                    directory: directory.clone(),
                    ..Program::default()
                };
                let printed = self.run(machine, login, &program);
                let wanted: Vec<u8> = names.iter().flat_map(|name| [&name[..], b"\0"].concat()).collect();
                if printed != wanted {
                    let mut got = printed.split(|byte| *byte == 0);
                    let bad = names.iter().find(|name| got.next() != Some(&name[..]));
                    panic!("{login}: not as it was: {:?}", bad.map(|name| name.escape_ascii().to_string()));
                }
            }
        }
        self.assert_untouched(login);
    }
}

fn ten_thousand_names_through(login: &str) {
    let names = names(NAMES);
    Ground::new(&names).arguments_arrive(&Machine::new("dash"), login, &names);
}

macro_rules! logins {
    ($($test:ident: $login:literal;)*) => {
        $(#[test]
        fn $test() {
            ten_thousand_names_through($login);
        })*

        #[test]
        fn no_login_shell_is_left_out() {
            assert_eq!([$($login),*], LOGIN_SHELLS);
        }
    };
}

logins! {
    ten_thousand_names_through_bash: "bash";
    ten_thousand_names_through_dash: "dash";
    ten_thousand_names_through_zsh: "zsh";
    ten_thousand_names_through_fish: "fish";
    ten_thousand_names_through_tcsh: "tcsh";
    ten_thousand_names_through_mksh: "mksh";
    ten_thousand_names_through_busybox: "busybox";
}

/// The script itself is run by `sh`, whatever that is.
#[test]
fn a_thousand_names_through_every_sh() {
    let names = worst(names(NAMES), 1000);
    let ground = Ground::new(&names);
    for shell in SHELLS {
        ground.arguments_arrive(&Machine::new(shell), "dash", &names);
    }
}

/// As the directory to start in, as the program, and as a variable.
#[test]
fn names_as_directory_program_and_variable() {
    let names: Vec<Vec<u8>> = worst(names(NAMES), 200);
    let names: Vec<&Vec<u8>> =
        names.iter().filter(|name| is_file_name(name) && !name.contains(&b'=')).collect();
    let ground = Ground::new(&[]);
    let place = TempDir::new().expect("a directory");
    let show = place.path().join("show");
    write_script(&show, "#!/bin/sh\nprintf '%s\\000' \"$0\" \"$VALUE\"\n");
    for name in &names {
        let directory = place.path().join(OsStr::from_bytes(name));
        std::fs::create_dir(&directory).expect("a directory");
        symlink(&show, directory.join(OsStr::from_bytes(name))).expect("a link");
    }
    for (number, login) in LOGIN_SHELLS.iter().enumerate() {
        let machine = Machine::new(SHELLS[number % SHELLS.len()]);
        for name in names.iter().skip(number).step_by(5) {
            let program = Program {
                name: [b"./", &name[..]].concat(),
                environment: vec![(b"VALUE".to_vec(), name.to_vec())],
                directory: Some([place.path().as_os_str().as_bytes(), b"/", &name[..]].concat()),
                ..Program::default()
            };
            let wanted = [b"./", &name[..], b"\0", &name[..], b"\0"].concat();
            let printed = ground.run(&machine, login, &program);
            assert_eq!(printed.escape_ascii().to_string(), wanted.escape_ascii().to_string(), "{login}");
        }
        ground.assert_untouched(login);
    }
}

fn checksum_of(content: &[u8]) -> Checksum {
    let mut chain = Chain::new(Method::Sha256);
    chain.update(content);
    chain.finish()
}

#[tokio::test]
async fn names_are_hashed_behind_every_login_shell() {
    let names: Vec<Vec<u8>> =
        worst(names(NAMES), 400).into_iter().filter(|name| is_file_name(name)).take(210).collect();
    let ground = Ground::new(&names);
    for (number, login) in LOGIN_SHELLS.iter().enumerate() {
        let machine = Machine::new("dash");
        let connection = machine.login(login).await;
        for name in names.iter().skip(number).step_by(LOGIN_SHELLS.len()) {
            let path = [ground.path().as_os_str().as_bytes(), b"/", &name[..]].concat();
            let path = RemotePath::new(path).expect("a path");
            let content = [&name[..], b"\0"].concat();
            let (program, size) = (HashProgram::Coreutils, content.len() as u64);
            let hashed = hash_file(&*connection, program, Method::Sha256, &path, size, |_| ()).await;
            assert_eq!(
                hashed.map_err(|error| error.to_string()),
                Ok(checksum_of(&content)),
                "{login}: {path}"
            );
        }
        ground.assert_untouched(login);
    }
}

#[test]
fn names_are_merged_in_every_shell() {
    // A temp directory's name is shortened where it would be too long; so is none of these.
    let short = names(NAMES).into_iter().filter(|name| is_file_name(name) && name.len() < 100).collect();
    for (number, name) in worst(short, 100).iter().enumerate() {
        let shell = MERGING_SHELLS[number % MERGING_SHELLS.len()];
        let scene = Scene::new(name, 2, 4096, 5);
        scene.put_chunks(1..=2);
        let context = format!("{shell}: {}", name.escape_ascii());
        assert_eq!(scene.merge(&Machine::new(shell)), MergeState::Done, "{context}");
        scene.assert_done(&context);
    }
}

/// The whole way: the program, SSH, sshd and the login shell that it starts.
#[test]
fn names_arrive_behind_sshd_in_every_login_shell() {
    let names = worst(names(NAMES), 300);
    for login in LOGIN_SHELLS {
        let applet = if login == "busybox" { " sh" } else { "" };
        let stage = Stage::login_shell(&format!("{}{applet}", find(login).display()));
        let before = entries(stage.home());
        let mut command: Command = stage.exec();
        command.args(["127.0.0.1", "--", "printf", "%s\\000"]);
        command.args(names.iter().map(|name| OsStr::from_bytes(name)));
        let got = outcome(command, None);
        assert_eq!((got.code, got.errors()), (0, String::new()), "{login}");
        let wanted: Vec<u8> = names.iter().flat_map(|name| [&name[..], b"\0"].concat()).collect();
        assert!(got.stdout == wanted, "{login}");
        let made: Vec<PathBuf> =
            entries(stage.home()).into_iter().filter(|path| !before.contains(path)).collect();
        // fish and others keep their state there.
        assert!(!made.iter().any(|path| path.to_string_lossy().contains("canary")), "{login}: {made:?}");
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()).collect()
}
