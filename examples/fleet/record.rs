//! One record of an inventory: which of its fields BMDB knows, and what becomes of the others.

use std::collections::BTreeMap;

use bmdb::machine::NewMachine;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// The fields of one record, as JSON text: what is not ours is kept exactly as it came.
type Fields = BTreeMap<String, Box<RawValue>>;

/// The names under which the provider's id of a machine may come; the first that is there counts.
pub(crate) const PROVIDER_ID: [&str; 2] = ["provider_id", "hwid"];

/// The machine of a CSV record.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_csv(
    header: &csv::StringRecord,
    record: &csv::StringRecord,
    provider: &str,
) -> Result<NewMachine, String> {
    let cells = header.iter().zip(record).filter(|(_, cell)| !cell.is_empty());
    let fields = cells.map(|(column, cell)| Ok((column.to_owned(), to_raw_value(cell)?)));
    let fields = fields
        .collect::<Result<_, serde_json::Error>>()
        .map_err(|error| error.to_string())?;
    machine(fields, provider)
}

/// The machine of a line that is a JSON object.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn of_json(line: &[u8], provider: &str) -> Result<NewMachine, String> {
    let text = std::str::from_utf8(line).map_err(|error| format!("it is not UTF-8: {error}"))?;
    let fields = serde_json::from_str(text.trim_start_matches('\u{feff}').trim_end()).map_err(|error| {
        // serde_json calls every line the first.
        let what = error.to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        format!("it is not one JSON object: {what}, column {}", error.column())
    })?;
    machine(fields, provider)
}

/// What is wrong with a CSV record, without what we say better.
pub(crate) fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("it has {len} fields; expected {expected_len}, as in the header")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("it is not UTF-8: {err}"),
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => error.to_string(),
    }
}

/// The machine with this number, at an address for documentation (RFC 3849).
pub(crate) fn invent(number: u64, provider: &str) -> NewMachine {
    let (high, low) = (number >> 16, number & 0xffff);
    NewMachine {
        provider: provider.to_owned(),
        provider_id: format!("invented-{number:08}"),
        address: Some(format!("2001:db8::{high:x}:{low:x}")),
        location: Some(format!(
            "hall {}, rack {}, unit {}",
            number / 2000,
            number / 40 % 50,
            number % 40 + 1
        )),
        hardware_report: Some(format!(r#"{{"model":"Anvil R{}"}}"#, number % 5 + 1).into_bytes()),
        ..NewMachine::default()
    }
}

/// Makes a machine of a record: takes out the fields that BMDB knows; the rest is the hardware report.
fn machine(mut fields: Fields, provider: &str) -> Result<NewMachine, String> {
    let mut provider_id = None;
    for name in PROVIDER_ID {
        if provider_id.is_none() {
            provider_id = take_text(&mut fields, name)?;
        }
    }
    Ok(NewMachine {
        provider: take_text(&mut fields, "provider")?.unwrap_or_else(|| provider.to_owned()),
        provider_id: provider_id.ok_or("it has no provider_id and no hwid")?,
        reservation: take_text(&mut fields, "reservation")?,
        address: take_text(&mut fields, "address")?,
        location: take_text(&mut fields, "location")?,
        hardware_report: match fields.is_empty() {
            true => None,
            false => Some(serde_json::to_vec(&fields).map_err(|error| error.to_string())?),
        },
    })
}

/// Takes a field out. Empty and `null` are as good as absent.
fn take_text(fields: &mut Fields, name: &str) -> Result<Option<String>, String> {
    let Some(raw) = fields.remove(name) else {
        return Ok(None);
    };
    match serde_json::from_str(raw.get()) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Ok(Value::Number(_)) => Ok(Some(raw.get().to_owned())),
        _ => Err(format!("its {name} is neither text nor a number")),
    }
}
