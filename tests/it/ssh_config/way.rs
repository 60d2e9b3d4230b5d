//! What `ssh -v` does on the way to a host, hop by hop: the command that it would run and
//! the key files that it would read.

use std::path::PathBuf;
use std::time::Duration;

use haul::remote::ssh::config::chain::{Context, chain};
use haul::remote::ssh::{SshOptions, Via};

use super::judge::{Case, Judge};

/// Keys of kinds that haul does not have.
const NOT_HAULS: [&str; 2] = ["/id_xmss", "/id_dsa"];

/// All hosts are this machine, at a port where nobody listens.
const TEXTS: [&str; 9] = [
    "Host a\n ProxyCommand nc -x '%h' %p %n %r %k %%\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n IdentityFile ~/.ssh/%h-%p-%r-%n-%u\n IdentityFile ${HAUL_TEST_DIR}/k\n IdentityFile none\n \
     IdentityFile %d/x-%i-%L-%l-%C-%k\nHost *\n HostName 127.0.0.1\n Port 1\n User al\n HostKeyAlias Al\n",
    "Host a\n CertificateFile ~/c-%h\n CertificateFile ${HAUL_TEST_DIR}/d\n IdentityFile /k\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump b\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump x@b:2,y@c:3\n User me\nHost c\n User never\n Port 4\n ProxyJump nowhere\n\
     Host b\n IdentityFile /b-%r\n ProxyJump d\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump b\nHost b\n ProxyJump c\nHost c\n ProxyCommand false %h %p\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump ssh://u%25h@b:7\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump gate-%r-%n\n User al\nHost *\n HostName 127.0.0.1\n Port 1\n",
    "Host a\n ProxyJump b,c\nMatch host 127.0.0.1 user u\n IdentityFile /matched\nHost b\n User u\n\
     Match final host 127.0.0.1\n IdentityFile /final\nHost *\n HostName 127.0.0.1\n Port 1\n",
];

impl Judge {
    /// What ssh says with `-v` while it tries.
    fn tries(&self, arguments: &[String]) -> Vec<String> {
        let output = self.command().arg("-v").args(arguments).output().expect("ssh runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().filter_map(|line| line.strip_prefix("debug1: ")).map(str::to_owned).collect()
    }

    /// The command behind which the host is, tokens replaced.
    fn command_to(&self, arguments: &[String]) -> Option<String> {
        let lines = self.tries(arguments);
        lines.iter().find_map(|line| line.strip_prefix("Executing proxy command: exec ").map(str::to_owned))
    }

    fn key_files(&self, arguments: &[String], kind: &str) -> Vec<PathBuf> {
        // One process, so that no hop's files are among them.
        let mut alone = vec!["-oProxyCommand=false".to_owned()];
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "-J" => drop(rest.next()),
                hops if hops.starts_with("-J") => {}
                other => alone.push(other.to_owned()),
            }
        }
        let lines = self.tries(&alone);
        let files = lines.iter().filter_map(|line| line.strip_prefix(kind)?.rsplit_once(" type "));
        files
            .map(|(file, _)| file.to_owned())
            // ssh looks for a certificate beside each key.
            .filter(|file| !(kind == "identity file " && file.ends_with("-cert")))
            .filter(|file| !NOT_HAULS.iter().any(|name| file.ends_with(name)))
            .map(PathBuf::from)
            .collect()
    }

    /// `options` against what ssh does with these arguments; then the same for its hop.
    fn follow(&self, options: &SshOptions, arguments: &[String], what: &str) {
        let printed = self.resolved(arguments);
        let value = |keyword: &str| printed[keyword][0].clone();
        let ours = (options.address.clone(), options.port.to_string(), options.user.clone());
        assert_eq!(ours, (value("hostname"), value("port"), value("user")), "{what}");
        assert_eq!(options.identity_files, self.key_files(arguments, "identity file "), "{what}");
        assert_eq!(options.certificate_files, self.key_files(arguments, "certificate file "), "{what}");
        let command = self.command_to(arguments);
        match (&options.via, command) {
            (Via::Tcp, None) => {}
            (Via::Command(ours), Some(command)) => assert_eq!(*ours, command, "{what}"),
            (Via::Jump(hop), Some(command)) => {
                let words: Vec<&str> = command.split(' ').collect();
                let at = words.iter().position(|word| *word == "-W").expect("ssh jumps by -W");
                let address = format!("'[{}]:{}'", options.address, options.port);
                assert_eq!(words[at + 1], address, "{what}");
                let kept = words.iter().enumerate().filter(|(index, word)| {
                    *index != 0 && *index != at && *index != at + 1 && **word != "-v"
                });
                let arguments: Vec<String> = kept.map(|(_, word)| (*word).to_owned()).collect();
                self.follow(hop, &arguments, &format!("{what}\n{command}"));
            }
            (via, command) => panic!("{what}: haul has {via:?}, ssh has {command:?}"),
        }
    }
}

#[test]
fn the_way_is_ssh_s_way_hop_by_hop() {
    let judge = Judge::new();
    let mut cases: Vec<Case> = TEXTS.iter().map(|text| Case::new(text, "a")).collect();
    cases.push(Case { jump: Some("b,me@c:5".to_owned()), ..cases[3].clone() });
    cases.push(Case { jump: Some("none".to_owned()), ..cases[3].clone() });
    for case in cases {
        let main = judge.write(&case);
        let request = judge.request(&case, &main).expect("a request");
        let context = Context {
            local: &judge.local,
            world: &judge.machine(),
            stall_timeout: Duration::from_secs(30),
            person: false,
            agent_socket: None,
            inventory: &|_, _| Ok(()),
        };
        let options = chain(request, &context).expect("a way").options;
        let mut arguments = vec!["-F".to_owned(), main.to_str().expect("UTF-8").to_owned()];
        arguments.extend(case.jump.iter().map(|hops| format!("-J{hops}")));
        arguments.push(case.host.clone());
        judge.follow(&options, &arguments, &case.files[0].1);
    }
}
