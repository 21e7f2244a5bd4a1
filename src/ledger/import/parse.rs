//! Finds the records in a legacy file: one object, a list, JSON lines, or several of these one after the other.
//!
//! A record is imported as a whole or not at all. What is not imported is an item with the reason.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::record::{Digester, LegacyRecord, RecordFields, RecordReader, Scalar};

/// One value in a file: a record, or something else.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileItem {
    /// The line on which it, or the list that contains it, begins; from 1.
    pub(super) line: u64,
    /// The record, or why it is not a record.
    pub(super) record: Result<LegacyRecord, String>,
}

/// All items of a file, in order. There are none if the file is empty, or has empty lists.
pub(super) fn items(bytes: &[u8], reader: &RecordReader) -> Vec<FileItem> {
    let text = match decode(bytes) {
        Ok(text) => text,
        Err(reason) => return vec![FileItem { line: 1, record: Err(reason) }],
    };
    let text = text.as_ref();
    match values(text, 1, reader) {
        Ok(items) => items,
        Err(_) if is_json_lines(text) => lines(text)
            .flat_map(|(number, line)| values(line, number, reader).unwrap_or_else(|broken| vec![broken]))
            .collect(),
        Err(broken) => vec![broken],
    }
}

/// Removes a byte order mark, and converts UTF-16 to UTF-8: Windows tools write both.
fn decode(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(rest.into()),
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return Ok(bytes.into()),
    };
    let (pairs, rest) = bytes[2..].as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| units(*pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text.into_bytes().into()),
        _ => Err("is not valid UTF-16, which its byte order mark says it is; if it is still being written, the next \
                  import takes it"
            .to_owned()),
    }
}

/// The lines that are not blank, with their numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Whether a broken file has JSON lines, so that its other lines are records. The lines of a broken pretty-printed file are
/// not records, because they can be parts of one.
fn is_json_lines(text: &[u8]) -> bool {
    let is_object = |line: &[u8]| {
        line.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line.trim_ascii()).is_ok()
    };
    let mut rest = lines(text).map(|(_, line)| line);
    let Some(first) = rest.next() else { return false };
    if is_object(first) {
        return true;
    }
    // The first line is broken, or the beginning of the file was cut off. In a pretty-printed file, two consecutive lines are
    // never objects, because there is a comma or a key between them.
    let (good, all) = rest.fold((0_u64, 1_u64), |(good, all), line| (good + u64::from(is_object(line)), all + 1));
    !first.trim_ascii_start().starts_with(b"[") && good * 2 > all
}

/// The items of all values in `text`, which begins on line `line`; or the first syntax error.
fn values(text: &[u8], line: u64, reader: &RecordReader) -> Result<Vec<FileItem>, FileItem> {
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
        // The value is found first and read then, so that the next value is found also if this one is invalid.
        let mut ahead = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        if let Some(Err(e)) = ahead.next() {
            return Err(FileItem { line, record: Err(broken(&e)) });
        }
        let end = ahead.byte_offset().max(1);
        one_value(&rest[..end], line, reader, &mut items);
        line += newlines(&rest[..end]);
        at += end;
    }
}

/// Adds the items of one value. A list is imported as a whole or not at all.
fn one_value(value: &[u8], line: u64, reader: &RecordReader, items: &mut Vec<FileItem>) {
    let records = match value.first() {
        Some(b'[') => serde_json::from_slice(value).and_then(|elements: Vec<&RawValue>| {
            elements.iter().map(|element| one_record(element.get().as_bytes(), reader)).collect()
        }),
        _ => one_record(value, reader).map(|record| vec![record]),
    };
    match records {
        Ok(records) => items.extend(records.into_iter().map(|record| FileItem { line, record })),
        // The position of the error is to be the one in the whole value.
        Err(e) => {
            let error = serde_json::from_slice::<serde_json::Value>(value).err().unwrap_or(e);
            items.push(FileItem { line, record: Err(broken(&error)) });
        }
    }
}

/// The record in a value that is not a list, or why it is not a record.
///
/// # Errors
/// The value is not valid JSON.
fn one_record(value: &[u8], reader: &RecordReader) -> serde_json::Result<Result<LegacyRecord, String>> {
    let what = match value.first() {
        Some(b'{') => {
            let mut json = serde_json::Deserializer::from_slice(value);
            let record = json.deserialize_map(RecordVisitor(reader))?;
            return json.end().map(|()| record);
        }
        Some(b'[') => return Ok(not_an_object("a list in a list")),
        Some(b'"') => "text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    };
    serde_json::from_slice::<serde_json::Value>(value).map(|_| not_an_object(what))
}

fn not_an_object(what: &str) -> Result<LegacyRecord, String> {
    Err(format!("is {what}, not an object with the fields of a notification"))
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
            "ends in the middle of a value ({text}); if it is still being written, the next import reads it"
        );
    }
    let place = match (error.line(), error.column()) {
        (0, _) => String::new(),
        (1, column) => format!(", column {column}"),
        (lines, column) => format!(", {} lines down, column {column}", lines - 1),
    };
    format!("is not valid JSON ({text}{place})")
}

/// Reads an object as a record.
struct RecordVisitor<'a>(&'a RecordReader);

impl<'de> Visitor<'de> for RecordVisitor<'_> {
    type Value = Result<LegacyRecord, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut digester, mut fields) = (Digester::default(), RecordFields::default());
        while let Some(key) = map.next_key::<String>()? {
            digester.key(&key);
            let value = map.next_value_seed(FieldValue(&mut digester))?;
            fields.set(self.0, &key, value);
        }
        Ok(self.0.read(fields, digester.finish()))
    }
}

/// Reads the value of one field, and adds it to the digest.
struct FieldValue<'a>(&'a mut Digester);

impl<'de> DeserializeSeed<'de> for FieldValue<'_> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldValue<'_> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'{');
        while let Some(key) = map.next_key::<String>()? {
            self.0.key(&key);
            map.next_value_seed(FieldValue(&mut *self.0))?;
        }
        self.0.begin(b'}');
        Ok(Scalar::Other("an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'[');
        while elements.next_element_seed(FieldValue(&mut *self.0))?.is_some() {}
        self.0.begin(b']');
        Ok(Scalar::Other("a list"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
        self.0.text(text);
        Ok(Scalar::Text(text.to_owned()))
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
