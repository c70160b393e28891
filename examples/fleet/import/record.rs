//! One record of an inventory: which of its fields BMDB knows, and what becomes of the others.

use std::collections::BTreeMap;
use std::fmt;

use bmdb::machine::NewMachine;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The fields of one record, as JSON text: what is not ours is kept exactly as it came. No name stands twice.
struct Fields(BTreeMap<String, Box<RawValue>>);

/// The names under which the provider's id of a machine may come; the first that is there counts.
const PROVIDER_ID: [&str; 2] = ["provider_id", "hwid"];

/// What is said of JSON that is not one object a line.
pub(crate) const ARRAY: &str = "it is a JSON array; expected one object a line: jq -c '.[]' FILE";
pub(crate) const MANY_LINES: &str = "it is JSON over many lines; expected one object a line: jq -c . FILE, or jq -c '.results[]' FILE for a list within";

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.contains_key(&name) {
                        return Err(de::Error::custom(format!("the key {name:?} stands twice")));
                    }
                    fields.insert(name, map.next_value()?);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

/// Checks that a CSV header names the provider's id, and no column twice.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_header(header: &csv::StringRecord) -> Result<(), String> {
    let twice = |(place, column): &(usize, &str)| {
        !column.is_empty() && header.iter().take(*place).any(|before| before == *column)
    };
    if let Some((_, column)) = header.iter().enumerate().find(twice) {
        return Err(format!(
            "the header has the column {column:?} twice: which of them counts?"
        ));
    }
    if header.iter().any(|column| PROVIDER_ID.contains(&column)) {
        return Ok(());
    }
    let found = header.iter().take(20).collect::<Vec<_>>().join(", ");
    let hint = match header.iter().next() {
        Some(only) if header.len() == 1 && only.contains(';') => ", separated by semicolons: expected commas",
        Some(only) if header.len() == 1 && only.contains('\t') => ", separated by tabs: expected commas",
        _ => "",
    };
    Err(format!(
        "the header has no column provider_id or hwid; it has {found:?}{hint}"
    ))
}

/// The machine of a CSV record. `None`: all its cells are empty.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_csv(
    header: &csv::StringRecord,
    record: &csv::StringRecord,
    provider: &str,
) -> Result<Option<NewMachine>, String> {
    if record.iter().all(str::is_empty) {
        return Ok(None);
    }
    if record.len() != header.len() {
        return Err(format!(
            "it has {} fields; expected {}, as in the header",
            record.len(),
            header.len()
        ));
    }
    let mut fields = BTreeMap::new();
    for (column, cell) in header.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        if column.is_empty() {
            return Err(format!("it has {cell:?} in a column without a name"));
        }
        let cell = to_raw_value(cell).map_err(|error| error.to_string())?;
        fields.insert(column.to_owned(), cell);
    }
    machine(Fields(fields), provider).map(Some)
}

/// The machine of a line that is a JSON object.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_json(line: &[u8], provider: &str) -> Result<NewMachine, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let fields = serde_json::from_str(trimmed(text)).map_err(|error| {
        // serde_json calls every line the first.
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        format!("it is not one JSON object: {what}, column {}", error.column())
    })?;
    machine(fields, provider)
}

/// Whether the line is the beginning of an object and nothing else is wrong with it.
pub(crate) fn is_begun(line: &[u8]) -> bool {
    std::str::from_utf8(line)
        .is_ok_and(|text| serde_json::from_str::<Fields>(trimmed(text)).is_err_and(|error| error.is_eof()))
}

fn trimmed(line: &str) -> &str {
    line.trim_start_matches('\u{feff}').trim_end()
}

/// What is wrong with a CSV record, without what we say better.
pub(crate) fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { err, .. } => format!("it is not UTF-8: {err}"),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// The machine with this number, at an address for documentation (RFC 3849).
pub(crate) fn invent(number: u64, provider: &str) -> NewMachine {
    let (high, low) = (number >> 16, number & 0xffff);
    let location = format!(
        "hall {}, rack {}, unit {}",
        number / 2000,
        number / 40 % 50,
        number % 40 + 1
    );
    NewMachine::new(provider, format!("invented-{number:08}"))
        .address(format!("2001:db8::{high:x}:{low:x}"))
        .location(location)
        .hardware_report(format!(r#"{{"model":"Anvil R{}"}}"#, number % 5 + 1))
}

/// Makes a machine of a record: takes out the fields that BMDB knows; the rest is the hardware report.
fn machine(mut fields: Fields, provider: &str) -> Result<NewMachine, String> {
    let mut provider_id = None;
    for name in PROVIDER_ID {
        if provider_id.is_none() {
            provider_id = fields.take_text(name)?;
        }
    }
    let provider_id = provider_id.ok_or_else(|| match fields.list() {
        Some(name) => {
            format!("it has no provider_id and no hwid, but a list in its field {name:?}: jq -c '.{name}[]' FILE")
        }
        None => "it has no provider_id and no hwid".to_owned(),
    })?;
    if is_shortened(&provider_id) {
        return Err(format!(
            "its provider_id {provider_id} looks like a number that a spreadsheet has shortened, and other machines' may look the same: \
             export the column as text"
        ));
    }
    let provider = fields.take_text("provider")?.unwrap_or_else(|| provider.to_owned());
    let mut new = NewMachine::new(provider, provider_id);
    new.reservation = fields.take_text("reservation")?;
    new.address = fields.take_text("address")?;
    new.location = fields.take_text("location")?;
    if !fields.0.is_empty() {
        new.hardware_report = Some(serde_json::to_vec(&fields.0).map_err(|error| error.to_string())?);
    }
    Ok(new)
}

/// Whether it is a number as spreadsheets write long ones, `1.23E+11`, or as JSON may, `1.23e11`.
fn is_shortened(id: &str) -> bool {
    let Some((number, power)) = id.split_once(['E', 'e']) else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    // Without a sign and a fraction it may be a serial: 12E4.
    let signed = power.strip_prefix(['+', '-']);
    digits(whole) && digits(part) && digits(signed.unwrap_or(power)) && (signed.is_some() || number.len() > whole.len())
}

impl Fields {
    /// Takes a field out. Empty and `null` are as good as absent.
    fn take_text(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(raw) = self.0.remove(name) else {
            return Ok(None);
        };
        match serde_json::from_str(raw.get()) {
            Ok(Value::Null) => Ok(None),
            Ok(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Ok(Value::Number(_)) => Ok(Some(raw.get().to_owned())),
            _ => Err(format!("its {name} is neither text nor a number")),
        }
    }

    /// The name of a field that holds a list of objects.
    fn list(&self) -> Option<&str> {
        let is_list = |raw: &RawValue| {
            raw.get()
                .strip_prefix('[')
                .is_some_and(|rest| rest.trim_start().starts_with('{'))
        };
        self.0
            .iter()
            .find(|(_, raw)| is_list(raw))
            .map(|(name, _)| name.as_str())
    }
}
