//! The names: the same ones in every run, since the generator has a fixed seed.

use std::collections::HashSet;

/// What a file system takes as one name at most.
pub const NAME_MAX: usize = 255;
/// A program in PATH that leaves a trace when anything runs it.
pub const CANARY: &str = "haul_canary";

/// Each would run the canary, or be taken apart, where a quote is missed somewhere.
const FRAGMENTS: [&[u8]; 64] = [
    b"$(haul_canary)",
    b"`haul_canary`",
    b";haul_canary;",
    b"|haul_canary",
    b"||haul_canary",
    b"&haul_canary&",
    b"&&haul_canary",
    b"\nhaul_canary\n",
    b"\r\nhaul_canary\r\n",
    b"'",
    b"''",
    b"'\\''",
    b"';haul_canary;'",
    b"'$(haul_canary)'",
    b"\"",
    b"\";haul_canary;\"",
    b"\"$(haul_canary)\"",
    b"$((haul_canary))",
    b"${haul_canary}",
    b"${x:-$(haul_canary)}",
    b"${IFS}haul_canary",
    b"$'\\x3bhaul_canary'",
    b"<(haul_canary)",
    b">haul_canary",
    b">>haul_canary",
    b"<haul_canary",
    b"2>&1",
    b"{haul_canary,}",
    b"(haul_canary)",
    b"{ haul_canary;}",
    b"!haul_canary",
    b"!!",
    b"!$",
    b"^a^haul_canary",
    b"=haul_canary",
    b"#haul_canary",
    b"%haul_canary%",
    b"\\",
    b"\\\\",
    b"\\n",
    b"\\0101",
    b"\\c",
    b"%s%n%d",
    b"%b",
    b"*",
    b"?",
    b"[a-z]",
    b"[!a]*",
    b"~",
    b"~root",
    b"$HOME",
    b"$0",
    b"$@",
    b"$$",
    b"-",
    b"--",
    b"-rf",
    b"-e",
    b"-n",
    b"--help",
    b" ",
    b"\t",
    b"\x1b[31m",
    b"EOF\n",
];

/// Bytes that mean something to some shell, or to a terminal.
const SYNTAX: &[u8] =
    b"'\"`$\\;&|<>(){}[]*?!#~=%^,:- \t\n\r\x01\x03\x04\x07\x08\x0b\x0c\x1a\x1b\x7f\x80\x9b\xff";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn byte_but_nul(&mut self) -> u8 {
        self.below(255) as u8 + 1
    }

    fn fragment(&mut self) -> &'static [u8] {
        FRAGMENTS[self.below(FRAGMENTS.len())]
    }
}

fn name(random: &mut Random) -> Vec<u8> {
    let mut name = Vec::new();
    match random.below(32) {
        // Fragments, joined by nothing or by a byte of syntax.
        0..=11 => {
            for _ in 0..=random.below(3) {
                name.extend_from_slice(random.fragment());
                if random.below(2) == 0 {
                    name.push(SYNTAX[random.below(SYNTAX.len())]);
                }
            }
        }
        12..=18 => (0..=random.below(24)).for_each(|_| name.push(SYNTAX[random.below(SYNTAX.len())])),
        19..=24 => (0..=random.below(40)).for_each(|_| name.push(random.byte_but_nul())),
        // A fragment with one byte changed or put in.
        25..=28 => {
            name.extend_from_slice(random.fragment());
            let at = random.below(name.len());
            match random.below(2) {
                0 => name[at] = random.byte_but_nul(),
                _ => name.insert(at, random.byte_but_nul()),
            }
        }
        29 => {
            let characters =
                (0..=random.below(12)).filter_map(|_| char::from_u32(random.below(0x3000) as u32));
            name.extend_from_slice(characters.filter(|c| *c != '\0').collect::<String>().as_bytes());
        }
        // As long as a name may be, or nearly.
        30 => {
            let fragment = random.fragment();
            let length = NAME_MAX - random.below(12);
            name.extend(fragment.iter().cycle().take(length));
        }
        // Longer than any file system takes.
        _ => {
            let fragment = random.fragment();
            let length = NAME_MAX + 1 + random.below(600);
            name.extend(fragment.iter().cycle().take(length));
        }
    }
    name
}

/// So many names, all different, none empty, none with a NUL.
pub fn names(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random(13);
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(count);
    while names.len() < count {
        let name = name(&mut random);
        if !name.is_empty() && seen.insert(name.clone()) {
            names.push(name);
        }
    }
    names
}

/// Whether a directory can hold a file of this name.
pub fn is_file_name(name: &[u8]) -> bool {
    name.len() <= NAME_MAX && !name.contains(&b'/') && !matches!(name, b"" | b"." | b"..")
}

/// How much there is in a name for a shell or a terminal to get wrong.
pub fn badness(name: &[u8]) -> usize {
    let kinds: HashSet<u8> = name.iter().copied().filter(|byte| !byte.is_ascii_alphanumeric()).collect();
    let runs = name.windows(CANARY.len()).filter(|window| *window == CANARY.as_bytes()).count().min(2);
    let dash = usize::from(name.first() == Some(&b'-'));
    let long = usize::from(name.len() >= NAME_MAX - 12);
    kinds.len() + 4 * runs + 6 * dash + 6 * long
}

/// The worst of `names`.
pub fn worst(mut names: Vec<Vec<u8>>, count: usize) -> Vec<Vec<u8>> {
    names.sort_by_cached_key(|name| std::cmp::Reverse(badness(name)));
    names.truncate(count);
    names
}

#[test]
fn the_names_are_hostile() {
    let names = names(10_000);
    let with = |byte: u8| names.iter().filter(|name| name.contains(&byte)).count();
    for byte in SYNTAX {
        assert!(with(*byte) > 100, "{byte:#x}: {}", with(*byte));
    }
    assert!(names.iter().filter(|name| name.len() > NAME_MAX).count() > 100);
    assert!(names.iter().filter(|name| name.starts_with(b"-")).count() > 100);
    assert!(names.iter().filter(|name| std::str::from_utf8(name).is_err()).count() > 1000);
    assert!(names.iter().filter(|name| is_file_name(name)).count() > 9000);
}
