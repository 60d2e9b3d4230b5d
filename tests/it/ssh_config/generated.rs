//! Configurations made up from a seed: many ways of saying things, one after the other.

use super::judge::{Case, agree};

const COUNT: u64 = 400;
const HOSTS: [&str; 7] = ["web1", "web2", "db.example.org", "Gate", "10.1.2.3", "127.1", "fe80::A"];
const PATTERNS: [&str; 12] = [
    "*",
    "web*",
    "web?",
    "!web1 *",
    "*.example.org",
    "gate",
    "Gate",
    "10.*",
    "db* web2",
    "!db* !gate *",
    "real*",
    "\"web1\"",
];
const CONDITIONS: [&str; 18] = [
    "all",
    "final all",
    "canonical",
    "final",
    "!final",
    "host web*",
    "!host web1",
    "host real*,web2",
    "originalhost web1,gate",
    "user bob",
    "!user bob,al*",
    "localuser *",
    "exec true",
    "exec \"test %h = web1\"",
    "!exec \"test %p = 22\"",
    "final host real*",
    "host \"*.ORG\" user *",
    "localuser nobody exec false",
];
const SETTINGS: [&str; 62] = [
    "HostName real-%h",
    "HostName Real.example.org",
    "HostName 127.1",
    "Port 2201",
    "Port 22",
    "User bob",
    "User alice",
    "User \"a b\"",
    "IdentityFile ~/.ssh/one",
    "IdentityFile /two",
    "IdentityFile %d/three",
    "IdentityFile none",
    "CertificateFile ~/.ssh/one-cert.pub",
    "IdentitiesOnly yes",
    "IdentityAgent none",
    "IdentityAgent ${HAUL_TEST_DIR}/%n.sock",
    "IdentityAgent SSH_AUTH_SOCK",
    "UserKnownHostsFile ~/k1 ~/k2",
    "UserKnownHostsFile none",
    "UserKnownHostsFile /k/%h/%p/%r/${HAUL_TEST_NAME}",
    "GlobalKnownHostsFile /g",
    "GlobalKnownHostsFile none",
    "StrictHostKeyChecking accept-new",
    "StrictHostKeyChecking no",
    "StrictHostKeyChecking ask",
    "HostKeyAlias Alias",
    "HashKnownHosts yes",
    "CheckHostIP no",
    "ProxyJump jump1",
    "ProxyJump jump1,al@jump2:2202",
    "ProxyJump none",
    "ProxyCommand nc -x \"a b\" %h %p",
    "ProxyCommand none",
    "ConnectTimeout 10",
    "ConnectTimeout 1m30s",
    "ConnectTimeout none",
    "ServerAliveInterval 15",
    "ServerAliveInterval 0",
    "ServerAliveCountMax 4",
    "Ciphers aes256-ctr",
    "Ciphers +aes128-cbc",
    "KexAlgorithms -sntrup761*",
    "MACs ^hmac-sha2-512",
    "HostKeyAlgorithms +ssh-rsa",
    "PreferredAuthentications password,publickey",
    "PubkeyAuthentication no",
    "PasswordAuthentication no",
    "KbdInteractiveAuthentication no",
    "ChallengeResponseAuthentication yes",
    "NumberOfPasswordPrompts 1",
    "BatchMode yes",
    "AddressFamily inet",
    "AddressFamily any",
    "BindAddress 127.0.0.1",
    "Compression yes",
    "RekeyLimit 1G 30m",
    "RekeyLimit default",
    "LogLevel ERROR",
    "IgnoreUnknown Prot*,usekeychain",
    "SendEnv LANG LC_*",
    "ControlPath ~/.ssh/%C",
    "LocalForward 8080 localhost:80",
];
/// Now and then one of these, which ssh may refuse.
const ODDITIES: [&str; 12] = [
    "UseKeychain yes",
    "ProtNumber 2",
    "Port 0",
    "Port 22 23",
    "User \"open",
    "Match",
    "Include",
    "ProxyJump a,,b",
    "Compression maybe",
    "IdentityAgent ${NOT_SET_ANYWHERE}",
    "HostName %z",
    "ConnectTimeout 5q",
];

/// A generator that is the same everywhere (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("a small number")
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// The same thing, written in another way.
fn written(dice: &mut Dice, setting: &str) -> String {
    let (keyword, value) = setting.split_once(' ').unwrap_or((setting, ""));
    let keyword = match dice.roll(4) {
        0 => keyword.to_ascii_lowercase(),
        1 => keyword.to_ascii_uppercase(),
        _ => keyword.to_owned(),
    };
    let between = dice.pick(&[" ", " ", " ", "=", " = ", "\t", "  "]);
    let indent = dice.pick(&["", "  ", "\t", "    "]);
    let end = dice.pick(&["", "", "", "  ", "\r", "\t"]);
    format!("{indent}{keyword}{between}{value}{end}\n")
}

fn block(dice: &mut Dice, text: &mut String) {
    for _ in 0..dice.roll(6) {
        let setting = if dice.one_in(90) { dice.pick(&ODDITIES) } else { dice.pick(&SETTINGS) };
        text.push_str(&written(dice, setting));
        if dice.one_in(12) {
            text.push_str(dice.pick(&["\n", "# a remark\n", "  # \"another\n"]));
        }
    }
}

fn text(dice: &mut Dice, includes: &[&str]) -> String {
    let mut text = String::new();
    block(dice, &mut text);
    for _ in 0..dice.roll(5) {
        let head = match dice.roll(5) {
            0 | 1 => format!("Match {}", dice.pick(&CONDITIONS)),
            _ => format!("Host {}", dice.pick(&PATTERNS)),
        };
        text.push_str(&head);
        text.push('\n');
        block(dice, &mut text);
        if !includes.is_empty() && dice.one_in(3) {
            text.push_str(&format!("Include {{dir}}/{}\n", dice.pick(includes)));
            block(dice, &mut text);
        }
    }
    text
}

fn case(seed: u64) -> Case {
    // Neighbouring seeds would begin alike.
    let mut dice = Dice(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut case = Case::new(&text(&mut dice, &["inner*", "inner1", "inner2", "none"]), dice.pick(&HOSTS));
    case = case.file("inner1", &text(&mut dice, &["inner2"])).file("inner2", &text(&mut dice, &[]));
    for _ in 0..dice.roll(3) {
        let option = dice.pick(&SETTINGS);
        let option = if dice.one_in(2) { option.replacen(' ', "=", 1) } else { option.to_owned() };
        case = case.option(&option);
    }
    if dice.one_in(4) {
        case.port = Some(2299);
    }
    if dice.one_in(4) {
        case.user = Some(dice.pick(&["bob", "carol"]).to_owned());
    }
    case
}

#[test]
fn generated_configurations_mean_what_ssh_makes_of_them() {
    let taken = agree((0..COUNT).map(case));
    assert!(taken >= 200, "{taken} were taken by both");
}
