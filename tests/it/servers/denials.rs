//! OpenSSH's sftp-server with single requests forbidden (`-P`): haul does without, or says
//! what is forbidden and leaves no lock.

use crate::harness::sshd::Sshd;
use crate::rows::client::{CHUNK, Client, Outcome, content};
use crate::rows::place::beside;

const SIZE: u64 = 5 * CHUNK + 77;

struct Scene {
    sshd: Sshd,
    client: Client,
}

impl Scene {
    fn denying(requests: &str) -> Scene {
        Scene::of(Sshd::builder().sftp_arguments(&["-P", requests]).start())
    }

    fn of(sshd: Sshd) -> Scene {
        let client = Client::of(&sshd);
        Scene { sshd, client }
    }

    fn put(&self, seed: u64, more: &[&str]) -> Outcome {
        let source = self.client.source(format!("source-{seed}"), SIZE, seed);
        self.client.put(&source, self.sshd.scratch().join("disk.img"), more)
    }

    #[track_caller]
    fn holds(&self, seed: u64) {
        let target = self.sshd.scratch().join("disk.img");
        assert!(std::fs::read(&target).expect("the file is there") == content(SIZE, seed));
        assert_eq!(beside(&self.sshd, &target), Vec::<String>::new());
    }

    fn beside(&self) -> Vec<String> {
        beside(&self.sshd, &self.sshd.scratch().join("disk.img"))
    }
}

const EXTENSIONS: &str = "posix-rename,hardlink,fsync,statvfs,copy-data,limits,fsetstat,setstat";

#[test]
fn where_no_rename_replaces_the_shell_does() {
    for denied in ["posix-rename", EXTENSIONS] {
        let scene = Scene::denying(denied);
        scene.put(1, &[]).expect(0);
        assert_eq!(scene.put(2, &["--if-exists", "replace"]).expect(0).status(), "uploaded");
        scene.holds(2);
    }
}

#[test]
fn without_a_shell_either_it_is_refused_before_the_upload() {
    let sshd = Sshd::builder().force_internal_sftp().sftp_arguments(&["-P", "posix-rename"]).start();
    let scene = Scene::of(sshd);
    scene.put(1, &[]).expect(0);
    scene.put(2, &["--if-exists", "replace"]).expect(4).says("--non-atomic-replace");
    scene.put(2, &["--if-exists", "replace", "--non-atomic-replace"]).expect(0);
    scene.holds(2);
}

#[test]
fn what_can_be_done_without_is_done_without() {
    for denied in ["fstat", "realpath", "rename", "setstat,fsetstat", "statvfs,fsync,limits"] {
        let scene = Scene::denying(denied);
        assert_eq!(scene.put(1, &[]).expect(0).status(), "uploaded", "{denied}");
        assert_eq!(scene.put(2, &["--if-exists", "replace"]).expect(0).status(), "uploaded", "{denied}");
        scene.holds(2);
    }
}

#[test]
fn directories_that_cannot_be_removed_are_in_nobodys_way() {
    let scene = Scene::denying("rmdir");
    for seed in [1, 2, 2, 3] {
        scene.put(seed, &["--if-exists", "replace"]).expect(0);
    }
}

#[test]
fn a_refusal_names_what_is_forbidden_and_leaves_no_lock() {
    let refused = [
        ("mkdir", "make directory"),
        ("read", "read back"),
        ("write", "write"),
        ("open", "open"),
        ("close", "close"),
        ("opendir", "list"),
        ("lstat", "lstat"),
        ("rename,posix-rename", "rename"),
    ];
    for (denied, said) in refused {
        let scene = Scene::denying(denied);
        scene.put(1, &[]).expect(13).says(said);
        assert!(!scene.beside().contains(&"disk.img:lock".to_owned()), "{denied}: {:?}", scene.beside());
    }
}
