//! The bytes of a legacy file as its records: one object, a list, JSON lines, or several of these one after the other.
//!
//! Nothing is guessed: a record is taken whole or not at all, and what is not taken is an item with the reason.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::record::{Digester, Found, Reader, Scalar, Slots};

/// One thing in a file: a record, or something that is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    /// The line on which it (or the list that it is in) begins, from 1.
    pub(super) line: u64,
    /// The record, or why it is none.
    pub(super) found: Result<Found, String>,
}

/// All items of a file, in order. No items: the file is empty, or holds empty lists.
pub(super) fn items(bytes: &[u8], reader: &Reader) -> Vec<Item> {
    let decoded;
    let text = match decode(bytes) {
        Ok(Decoded::AsIs(text)) => text,
        Ok(Decoded::FromUtf16(text)) => {
            decoded = text;
            decoded.as_bytes()
        }
        Err(reason) => return vec![Item { line: 1, found: Err(reason) }],
    };
    match values(text, 1, reader) {
        Ok(items) => items,
        Err(_) if is_json_lines(text) => lines(text)
            .flat_map(|(number, line)| values(line, number, reader).unwrap_or_else(|broken| vec![broken]))
            .collect(),
        Err(broken) => vec![broken],
    }
}

enum Decoded<'a> {
    AsIs(&'a [u8]),
    FromUtf16(String),
}

/// Takes a byte order mark off, and UTF-16 to UTF-8: what Windows tools write.
fn decode(bytes: &[u8]) -> Result<Decoded<'_>, String> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(Decoded::AsIs(rest)),
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return Ok(Decoded::AsIs(bytes)),
    };
    let (pairs, rest) = bytes[2..].as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| units(*pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(Decoded::FromUtf16(text)),
        _ => Err("is not valid UTF-16, which its byte order mark says it is; if it is still being written, the next \
                  import takes it"
            .to_owned()),
    }
}

/// The lines that are not blank, with their numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Whether a broken file is one of JSON lines, so that its other lines are records all the same. The lines of a broken
/// pretty-printed file must not be taken for records: they may be parts of one.
fn is_json_lines(text: &[u8]) -> bool {
    let whole = |line: &[u8]| {
        line.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line.trim_ascii()).is_ok()
    };
    let mut rest = lines(text).map(|(_, line)| line);
    let Some(first) = rest.next() else { return false };
    if whole(first) {
        return true;
    }
    // The first line is broken: cut, or what is left of a file whose beginning was cut away. In a pretty-printed file no
    // two lines in a row are whole objects, as there is a comma or a key between them.
    let (good, all) = rest.fold((0_u64, 1_u64), |(good, all), line| (good + u64::from(whole(line)), all + 1));
    !first.trim_ascii_start().starts_with(b"[") && good * 2 > all
}

/// The items of all values in `text`, which begins on line `line`; or the first syntax error.
fn values(text: &[u8], line: u64, reader: &Reader) -> Result<Vec<Item>, Item> {
    let mut items = Vec::new();
    let (mut at, mut line) = (0, line);
    loop {
        let blank = text[at..].iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        line += newlines(&text[at..at + blank]);
        at += blank;
        let rest = &text[at..];
        if rest.is_empty() {
            return Ok(items);
        }
        // Found first and read then: whatever is in a value, it is known where the next one begins.
        let mut ahead = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        if let Some(Err(e)) = ahead.next() {
            return Err(Item { line, found: Err(broken(&e)) });
        }
        let end = ahead.byte_offset().max(1);
        one_value(&rest[..end], line, reader, &mut items);
        line += newlines(&rest[..end]);
        at += end;
    }
}

fn one_value(value: &[u8], line: u64, reader: &Reader, items: &mut Vec<Item>) {
    let before = items.len();
    let mut json = serde_json::Deserializer::from_slice(value);
    let read = Value { reader, line, items, in_list: false }.deserialize(&mut json).and_then(|()| json.end());
    if let Err(e) = read {
        // What came before the fault in the same list goes as well: the list is taken whole or not at all.
        items.truncate(before);
        items.push(Item { line, found: Err(broken(&e)) });
    }
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn broken(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    if error.is_eof() {
        return format!(
            "ends in the middle of a value ({text}); if it is still being written, the next import takes it"
        );
    }
    let place = match (error.line(), error.column()) {
        (0, _) => String::new(),
        (1, column) => format!(", column {column}"),
        (lines, column) => format!(", {} lines down, column {column}", lines - 1),
    };
    format!("is not valid JSON ({text}{place})")
}

/// Reads a top-level value, or an element of a list.
struct Value<'a> {
    reader: &'a Reader,
    line: u64,
    items: &'a mut Vec<Item>,
    in_list: bool,
}

impl Value<'_> {
    fn push(self, found: Result<Found, String>) {
        self.items.push(Item { line: self.line, found });
    }

    fn not_an_object<E>(self, what: &str) -> Result<(), E> {
        self.push(Err(format!("is {what}, not an object with the fields of a notification")));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut digester = Digester::default();
        let mut slots = Slots::default();
        while let Some(key) = map.next_key::<String>()? {
            digester.key(&key);
            let value = map.next_value_seed(Scan(&mut digester))?;
            slots.take(self.reader, &key, value);
        }
        let found = self.reader.read(slots, digester.finish());
        self.push(found);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.in_list {
            while elements.next_element::<IgnoredAny>()?.is_some() {}
            return self.not_an_object("a list in a list");
        }
        loop {
            let element = Value { reader: self.reader, line: self.line, items: &mut *self.items, in_list: true };
            if elements.next_element_seed(element)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.not_an_object("text")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.not_an_object("true or false")
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.not_an_object("a number")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.not_an_object("null")
    }
}

/// Reads the value of one field and adds all of it to the digest.
struct Scan<'a>(&'a mut Digester);

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'{');
        while let Some(key) = map.next_key::<String>()? {
            self.0.key(&key);
            map.next_value_seed(Scan(&mut *self.0))?;
        }
        self.0.begin(b'}');
        Ok(Scalar::Other("an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'[');
        while elements.next_element_seed(Scan(&mut *self.0))?.is_some() {}
        self.0.begin(b']');
        Ok(Scalar::Other("a list"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
        self.0.text(text);
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Scalar, E> {
        self.0.text(&text);
        Ok(Scalar::Text(text))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Scalar, E> {
        self.0.begin(if value { b't' } else { b'f' });
        Ok(Scalar::Other("true or false"))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
        self.0.number(b'u', number.to_le_bytes());
        Ok(Scalar::Whole(i128::from(number)))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Scalar, E> {
        self.0.number(b'i', number.to_le_bytes());
        Ok(Scalar::Whole(i128::from(number)))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Scalar, E> {
        self.0.number(b'd', number.to_bits().to_le_bytes());
        Ok(Scalar::Fraction(number))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Scalar, E> {
        self.0.begin(b'n');
        Ok(Scalar::Null)
    }
}

/// The digests of a file's records, in order.
#[cfg(test)]
pub(super) fn digests(items: &[Item]) -> Vec<super::record::Digest> {
    items.iter().filter_map(|item| item.found.as_ref().ok()).map(|found| found.digest).collect()
}
