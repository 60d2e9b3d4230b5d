//! What stands behind a keyword, as numbers and times. All as strict as ssh is.

/// `1h30m`, `90`, `2D`, in seconds.
pub fn seconds(text: &str) -> Option<u32> {
    const LIMIT: u64 = i32::MAX as u64;
    let mut total: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok().filter(|number| *number <= LIMIT)?;
        rest = &rest[digits..];
        let mut chars = rest.chars();
        let factor = match chars.next() {
            None | Some('s' | 'S') => 1,
            Some('m' | 'M') => 60,
            Some('h' | 'H') => 60 * 60,
            Some('d' | 'D') => 24 * 60 * 60,
            Some('w' | 'W') => 7 * 24 * 60 * 60,
            Some(_) => return None,
        };
        rest = chars.as_str();
        total = total.checked_add(number.checked_mul(factor)?).filter(|total| *total <= LIMIT)?;
    }
    u32::try_from(total).ok()
}

/// A decimal number from 0 to 2³¹ - 1.
pub fn integer(text: &str) -> Option<u32> {
    let number: i64 = text.trim_start().parse().ok()?;
    u32::try_from(number).ok().filter(|number| *number <= i32::MAX as u32)
}

pub fn port(text: &str) -> Option<u16> {
    let number: i64 = text.trim_start().parse().ok()?;
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// `1G`, `1.5k`, `500`: powers of 1024. Without a letter a fraction is dropped.
pub fn scaled(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // ssh takes no number at all for zero.
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if fraction.contains('.') {
        return None;
    }
    let mut letters = unit.chars();
    let power = match letters.next().map(|letter| letter.to_ascii_uppercase()) {
        None => return Some(whole),
        Some('B') => 0,
        Some('K') => 1,
        Some('M') => 2,
        Some('G') => 3,
        Some('T') => 4,
        Some('P') => 5,
        Some('E') => 6,
        Some(_) => return None,
    };
    if letters.next().is_some_and(|next| next.is_ascii_alphanumeric()) {
        return None;
    }
    let factor = 1u64 << (10 * power);
    // More digits than these are below one byte of any unit.
    const FRACTION_DIGITS: usize = 18;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let part = match fraction.parse::<u128>() {
        Ok(digits) => {
            let tenths = 10u128.pow(u32::try_from(fraction.len()).ok()?);
            u64::try_from(digits * u128::from(factor) / tenths).ok()?
        }
        Err(_) => 0,
    };
    let total = whole.checked_mul(factor)?.checked_add(part)?;
    (total <= i64::MAX as u64).then_some(total)
}

pub fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("90", Some(90)),
            ("1h30m", Some(5400)),
            ("2W", Some(1_209_600)),
            ("10s5", Some(15)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-1", None),
            ("1y", None),
            ("1.5h", None),
            ("2147483648", None),
            ("4000w", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(port("22"), Some(22));
        assert_eq!(port("0"), None);
        assert_eq!(port("65536"), None);
        assert_eq!(port("22x"), None);
        assert_eq!(integer("0"), Some(0));
        assert_eq!(integer("-1"), None);
        assert_eq!(integer("2147483648"), None);
        for (text, expected) in [
            ("1G", Some(1 << 30)),
            ("500", Some(500)),
            ("1.5k", Some(1536)),
            ("1.5", Some(1)),
            ("16x", None),
            ("1kk", None),
            ("9999999999G", None),
            ("1.2.3", None),
        ] {
            assert_eq!(scaled(text), expected, "{text}");
        }
    }
}
