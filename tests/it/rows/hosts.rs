//! Row A15: hosts.toml by name and id.

use std::path::Path;
use std::process::Command;

use super::client::{CHUNK, Client, content};
use super::place::names;
use crate::harness::sshd::{Sshd, free_port};

fn inventory(sshd: &Sshd) -> String {
    format!(
        "[defaults]\nuser = \"{}\"\nidentity_file = \"{}\"\nknown_hosts = \"{}\"\nuser_id = \"team\"\n\n\
         [hosts.web1]\naddress = \"127.0.0.1\"\nport = {}\nid = \"m-0017\"\nmerge = \"sftp\"\n\n\
         [hosts.web2]\naddress = \"127.0.0.1\"\nport = {}\n\n[groups]\nweb = [\"web[1-2]\"]\n",
        sshd.user(),
        sshd.key_path().display(),
        sshd.known_hosts_path().display(),
        sshd.port(),
        free_port()
    )
}

fn haul_in(home: &Path, arguments: &[&str]) -> Command {
    let mut haul = crate::harness::haul(home);
    haul.args(arguments);
    haul
}

#[test]
fn a_host_is_reached_by_its_name_and_by_its_id() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 3 * CHUNK, 1);
    let config = client.home().join(".config/haul");
    std::fs::create_dir_all(&config).expect("a directory");
    let [here, configured, named] =
        [client.home().join("hosts.toml"), config.join("hosts.toml"), client.home().join("other.toml")];
    for (index, file) in [&here, &configured, &named].into_iter().enumerate() {
        std::fs::write(file, inventory(&sshd)).expect("a hosts file");
        for host in ["web1", "m-0017"] {
            let target = sshd.scratch().join(format!("{index}-{host}"));
            let destination = format!("{host}:{}", target.display());
            let mut haul = haul_in(client.home(), &["put", "--json", "--chunk-size", "64KiB"]);
            if file == &named {
                haul.arg("--hosts-file").arg(&named);
            }
            haul.arg(&source).arg(&destination);
            let outcome = client.run(haul).expect(0);
            let result = outcome.last();
            assert_eq!((&result["host"], &result["merge"]), (&"web1".into(), &"sftp".into()), "{host}");
            assert!(std::fs::read(&target).expect("the target") == content(3 * CHUNK, 1));
            // The command line wins over the file.
            let again = format!("{}-again", target.display());
            let mut haul = haul_in(client.home(), &["put", "--json", "--merge", "auto", "--hosts-file"]);
            haul.arg(file).arg(&source).arg(format!("{host}:{again}"));
            assert_eq!(client.run(haul).expect(0).last()["merge"], "placed");
        }
        std::fs::remove_file(file).expect("removed");
    }
    assert_eq!(names(&sshd, &sshd.scratch()).len(), 12);
}

#[test]
fn the_user_id_of_the_inventory_names_the_temp_directory() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    let source = client.source("source", 100 * CHUNK, 1);
    std::fs::write(client.home().join("hosts.toml"), inventory(&sshd)).expect("a hosts file");
    let target = sshd.scratch().join("disk.img");
    let destination = format!("web1:{}", target.display());
    let mut haul = haul_in(client.home(), &["put", "--bwlimit=512KiB"]);
    haul.arg(&source).arg(&destination);
    let mut run = client.start(haul);
    run.until("the temp directory", || names(&sshd, &sshd.scratch()).contains(&"disk.img:team".to_owned()));
}

#[test]
fn hosts_are_listed_and_tried() {
    let sshd = Sshd::start();
    let client = Client::of(&sshd);
    std::fs::write(client.home().join("hosts.toml"), inventory(&sshd)).expect("a hosts file");
    let listed = client.run(haul_in(client.home(), &["hosts"])).expect(0).stdout;
    for part in ["web1", "m-0017", "web2", "127.0.0.1", &sshd.port().to_string(), "web"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let outcome = client.run(haul_in(client.home(), &["hosts", "--ping"])).expect(3);
    let line = |name: &str| {
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert!(!line("web1").contains("refused") && line("web2").contains("refused"), "{outcome:?}");
    client.run(haul_in(client.home(), &["hosts", "--ping", "m-0017"])).expect(0);
    client.run(haul_in(client.home(), &["hosts", "absent"])).expect(2);
}
