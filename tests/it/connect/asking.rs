//! The program itself asks: by SSH_ASKPASS, never where nobody may be asked, and never
//! twice. What it is told does not show anywhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::harness::account::Account;
use crate::harness::sshd::{generate_key, public_key, write_script};
use crate::harness::wait::wait_until;
use crate::harness::{Sshd, haul};

struct Scene {
    sshd: Sshd,
    account: Account,
    asked: PathBuf,
}

impl Scene {
    /// A server that takes the account's password, and a program that knows it and keeps
    /// what it was asked.
    fn new() -> Option<Scene> {
        let account = Account::create()?;
        let sshd = Sshd::builder().config("KbdInteractiveAuthentication no").start();
        let asked = sshd.directory().join("asked");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$1\" >>'{}'\ncase $1 in *password*) echo '{}' ;; *) echo yes ;; esac\n",
            asked.display(),
            account.password()
        );
        write_script(&sshd.directory().join("askpass"), &script);
        Some(Scene { sshd, account, asked })
    }

    fn run(&self, options: &[&str], environment: &[(&str, &str)]) -> Output {
        let home = self.sshd.home();
        let mut haul = haul(&home);
        haul.args(["exec", "-vv", "-P", &self.sshd.port().to_string()])
            .args(["-o", &format!("UserKnownHostsFile={}", self.sshd.known_hosts_path().display())])
            .args(options)
            .arg(format!("{}@127.0.0.1", self.account.name()))
            .args(["--", "echo", "hello"])
            .env("SSH_ASKPASS", self.sshd.directory().join("askpass"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null());
        haul.output().expect("haul runs")
    }

    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.asked).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn question(&self) -> String {
        format!("{}@127.0.0.1's password: ", self.account.name())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_program_of_ssh_askpass_is_asked_once() {
    let Some(scene) = Scene::new() else { return };
    let output = scene.run(&[], &[("SSH_ASKPASS_REQUIRE", "force")]);
    let errors = text(&output.stderr);
    assert_eq!(text(&output.stdout), "hello\n", "{errors}");
    assert_eq!(scene.asked(), [scene.question()]);
    assert!(!errors.contains(scene.account.password()), "{errors}");
}

#[test]
fn nobody_is_asked_in_batch_mode_nor_where_it_is_forbidden() {
    let Some(scene) = Scene::new() else { return };
    for (options, environment) in [
        (&["-o", "BatchMode=yes"][..], ("SSH_ASKPASS_REQUIRE", "force")),
        (&[], ("SSH_ASKPASS_REQUIRE", "never")),
    ] {
        let output = scene.run(options, &[environment, ("DISPLAY", ":7")]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{errors}");
        assert!(errors.contains("password"), "{errors}");
        assert_eq!(scene.asked(), Vec::<String>::new());
    }
}

#[test]
fn a_wrong_answer_is_asked_for_as_often_as_ssh_does() {
    let Some(scene) = Scene::new() else { return };
    let wrong = scene.sshd.directory().join("wrong");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >>'{}'\necho wrong\n", scene.asked.display());
    write_script(&wrong, &script);
    let wrong = wrong.display().to_string();
    let environment = [("SSH_ASKPASS_REQUIRE", "force"), ("SSH_ASKPASS", wrong.as_str())];
    let output = scene.run(&[], &environment);
    assert_eq!(output.status.code(), Some(255));
    assert_eq!(scene.asked(), vec![scene.question(); 3]);
}

/// What a running haul holds is in nobody's reach.
#[test]
fn secrets_stay_out_of_arguments_and_core_dumps() {
    let sshd = Sshd::start();
    let key = sshd.directory().join("locked");
    generate_key(&key, "ed25519", "open sesame");
    std::fs::write(sshd.authorized_keys_path(), public_key(&key)).expect("authorized_keys");
    let askpass = sshd.directory().join("askpass");
    write_script(&askpass, "#!/bin/sh\necho open sesame\n");
    let started = sshd.scratch().join("started");
    let mut program = haul(&sshd.home());
    program
        .args(["exec", "-P", &sshd.port().to_string(), "-i"])
        .arg(&key)
        .args(["-o", &format!("UserKnownHostsFile={}", sshd.known_hosts_path().display())])
        .arg(format!("{}@127.0.0.1", sshd.user()))
        .args(["--", "sh", "-c", &format!("touch {}; exec sleep 600", started.display())])
        .env("SSH_ASKPASS", &askpass)
        .env("SSH_ASKPASS_REQUIRE", "force");
    // From surroundings that would write as much as they may.
    let mut running = Command::new("sh")
        .args(["-c", "ulimit -S -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\""])
        .arg(program.get_program())
        .args(program.get_args())
        .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("haul runs");
    wait_until("the command", Duration::from_secs(60), || started.exists());
    let of_process = |name: &str| {
        std::fs::read(Path::new("/proc").join(running.id().to_string()).join(name)).expect("readable")
    };
    let limits = text(&of_process("limits"));
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("the limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    assert!(!text(&of_process("cmdline")).contains("sesame"));
    assert!(!text(&of_process("environ")).contains("sesame"));
    running.kill().expect("kill");
    running.wait().expect("wait");
}
