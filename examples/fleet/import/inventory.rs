//! Reads machines one by one from CSV with a header, from JSON lines, or invents them. Never holds more than one record.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use bmdb::machine::NewMachine;

use crate::import::record;

/// The inventory that is used when none is named.
const SHIPPED: &[u8] = include_bytes!("../inventory.csv");

/// The longest record. A quote that is never closed, or a file without lines, must not be read into memory.
const LONGEST: usize = 1024 * 1024;

/// What is wrong with an inventory, and where.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {what}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub(crate) struct InventoryError {
    /// The file.
    pub(crate) file: String,
    /// The line, counted from 1.
    pub(crate) line: Option<u64>,
    /// What was found, and what was expected.
    pub(crate) what: String,
    /// Whether nothing can be read after it.
    pub(crate) ends: bool,
}

/// A machine, and the line that it stands on.
pub(crate) type Row = (u64, NewMachine);

/// The machines of one inventory, in their order, and what is wrong between them. Empty records are passed over.
pub(crate) struct Inventory {
    file: String,
    provider: String,
    size: u64,
    format: Format,
}

enum Format {
    Csv {
        reader: Box<csv::Reader<BufReader<Source>>>,
        header: csv::StringRecord,
    },
    JsonLines {
        reader: BufReader<Source>,
        line: u64,
        text: Vec<u8>,
    },
    Invented {
        next: u64,
    },
    Ended,
}

impl Inventory {
    /// Opens a file and finds out by its name, or else by its first character, what it is.
    ///
    /// # Errors
    /// A missing or empty file, one of another format, or a CSV header without a column for the provider's id or with one twice.
    pub(crate) fn open(path: &Path, provider: &str) -> Result<Self, InventoryError> {
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) => Self::read(name, Box::new(file), size, provider),
            Err(error) => Err(InventoryError {
                file: name,
                line: None,
                what: error.to_string(),
                ends: true,
            }),
        }
    }

    /// The inventory that comes with the command.
    ///
    /// # Errors
    /// None, unless the command was built with a wrong one.
    pub(crate) fn shipped(provider: &str) -> Result<Self, InventoryError> {
        Self::read(
            "inventory.csv".to_owned(),
            Box::new(SHIPPED),
            SHIPPED.len() as u64,
            provider,
        )
    }

    /// So many machines that nobody has.
    pub(crate) fn invented(machines: u64, provider: &str) -> Self {
        let (file, provider) = ("invented machines".to_owned(), provider.to_owned());
        Self {
            file,
            provider,
            size: machines,
            format: Format::Invented { next: 0 },
        }
    }

    fn read(file: String, source: Box<dyn Read + Send>, size: u64, provider: &str) -> Result<Self, InventoryError> {
        let wrong = |line, what| InventoryError {
            file: file.clone(),
            line,
            what,
            ends: true,
        };
        let mut reader = BufReader::new(Source {
            inner: source,
            read: 0,
            left: LONGEST,
        });
        let start = reader.fill_buf().map_err(|error| wrong(None, error.to_string()))?;
        if let Some((_, what)) = OTHER_FORMATS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Err(wrong(None, (*what).to_owned()));
        }
        let first = start
            .strip_prefix(BOM)
            .unwrap_or(start)
            .iter()
            .find(|byte| !byte.is_ascii_whitespace());
        let extension = file
            .rsplit_once('.')
            .map(|(_, extension)| extension.to_ascii_lowercase());
        let json = match extension.as_deref() {
            Some("json" | "jsonl" | "ndjson") => true,
            Some("csv") => false,
            _ => matches!(first, Some(b'{' | b'[')),
        };
        let format = match first {
            None => return Err(wrong(None, "the file is empty".to_owned())),
            Some(b'[') if json => return Err(wrong(Some(1), record::ARRAY.to_owned())),
            Some(_) if json => Format::JsonLines {
                reader,
                line: 0,
                text: Vec::new(),
            },
            Some(_) => {
                let mut reader = Box::new(
                    csv::ReaderBuilder::new()
                        .flexible(true)
                        .trim(csv::Trim::All)
                        .from_reader(reader),
                );
                let header = reader
                    .headers()
                    .map_err(|error| wrong(Some(1), record::csv_error(&error)))?
                    .clone();
                record::check_header(&header).map_err(|what| wrong(Some(1), what))?;
                Format::Csv { reader, header }
            }
        };
        Ok(Self {
            file,
            provider: provider.to_owned(),
            size,
            format,
        })
    }

    /// How much has been read, of how much: bytes of a file, or machines.
    pub(crate) fn progress(&self) -> (u64, u64) {
        let read = match &self.format {
            Format::Csv { reader, .. } => reader.get_ref().get_ref().read,
            Format::JsonLines { reader, .. } => reader.get_ref().read,
            Format::Invented { next } => *next,
            Format::Ended => self.size,
        };
        (read, self.size)
    }

    /// What is wrong on a line.
    pub(crate) fn wrong(&self, line: u64, what: String) -> InventoryError {
        InventoryError {
            file: self.file.clone(),
            line: Some(line),
            what,
            ends: false,
        }
    }

    /// Whether its machines come from a file, which may name one twice.
    pub(crate) fn is_file(&self) -> bool {
        !matches!(self.format, Format::Invented { .. })
    }

    /// The next record's line, and its machine or what is wrong with it. `None`: it is empty.
    fn next_row(&mut self) -> Option<(u64, Result<Option<NewMachine>, Wrong>)> {
        let provider = &self.provider;
        match &mut self.format {
            Format::Csv { reader, header } => {
                reader.get_mut().get_mut().left = LONGEST;
                let mut record = csv::StringRecord::new();
                match reader.read_record(&mut record) {
                    Ok(false) => None,
                    Ok(true) => {
                        let machine = record::of_csv(header, &record, provider);
                        Some((record.position()?.line(), machine.map_err(Wrong::Record)))
                    }
                    Err(error) => {
                        let line = error.position().unwrap_or(reader.position()).line();
                        let what = record::csv_error(&error);
                        let wrong = if error.is_io_error() {
                            Wrong::File(what)
                        } else {
                            Wrong::Record(what)
                        };
                        Some((line, Err(wrong)))
                    }
                }
            }
            Format::JsonLines { reader, line, text } => loop {
                reader.get_mut().left = LONGEST;
                text.clear();
                *line += 1;
                match reader.read_until(b'\n', text) {
                    Ok(0) => return None,
                    Ok(_) if text.trim_ascii().is_empty() => {}
                    Ok(_) => {
                        let machine = record::of_json(text, provider).map(Some);
                        let wrong = |what| {
                            // Who writes an object over many lines does so with each.
                            if *line == 1 && record::is_begun(text) {
                                Wrong::File(record::MANY_LINES.to_owned())
                            } else {
                                Wrong::Record(what)
                            }
                        };
                        return Some((*line, machine.map_err(wrong)));
                    }
                    Err(error) => return Some((*line, Err(Wrong::File(error.to_string())))),
                }
            },
            Format::Invented { next } if *next < self.size => {
                *next += 1;
                Some((*next, Ok(Some(record::invent(*next, provider)))))
            }
            Format::Invented { .. } | Format::Ended => None,
        }
    }
}

/// What is wrong, and how much of the file it spoils.
enum Wrong {
    Record(String),
    File(String),
}

impl Iterator for Inventory {
    type Item = Result<Row, InventoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((line, row)) = self.next_row() else {
                self.format = Format::Ended;
                return None;
            };
            match row {
                Ok(Some(machine)) => return Some(Ok((line, machine))),
                Ok(None) => {}
                Err(Wrong::Record(what)) => return Some(Err(self.wrong(line, what))),
                Err(Wrong::File(what)) => {
                    self.format = Format::Ended;
                    return Some(Err(InventoryError {
                        ends: true,
                        ..self.wrong(line, what)
                    }));
                }
            }
        }
    }
}

/// How files begin that people take for an inventory, and what to do with them.
const OTHER_FORMATS: [(&[u8], &str); 6] = [
    (b"\x1f\x8b", "it is compressed with gzip; unpack it first: gunzip FILE"),
    (
        b"\x28\xb5\x2f\xfd",
        "it is compressed with zstd; unpack it first: unzstd FILE",
    ),
    (b"\xfd7zXZ", "it is compressed with xz; unpack it first: unxz FILE"),
    (
        b"PK\x03\x04",
        "it is a ZIP archive, as Excel's and LibreOffice's workbooks are; save the sheet as CSV in UTF-8",
    ),
    (b"\xff\xfe", UTF_16),
    (b"\xfe\xff", UTF_16),
];

const UTF_16: &str = "it is UTF-16; save it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE";

/// What spreadsheets put before UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file that counts what is read, and refuses to read on without having been told that a record has ended.
struct Source {
    inner: Box<dyn Read + Send>,
    read: u64,
    left: usize,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other(
                "the record is longer than 1 MiB; is a quote or a line end missing?",
            ));
        }
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        self.left = self.left.saturating_sub(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::Config as Cases;

    /// The machines of `text`, and what was wrong first.
    fn read(name: &str, text: &[u8]) -> (Vec<Row>, Option<String>) {
        let source = Box::new(io::Cursor::new(text.to_vec()));
        let inventory = match Inventory::read(name.to_owned(), source, text.len() as u64, "here") {
            Ok(inventory) => inventory,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let (mut rows, mut wrong) = (Vec::new(), None);
        for row in inventory {
            match row {
                Ok(row) => rows.push(row),
                Err(error) => wrong = wrong.or(Some(error.to_string())),
            }
        }
        (rows, wrong)
    }

    fn ids(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|(_, machine)| machine.provider_id.as_str()).collect()
    }

    fn report(row: &Row) -> &str {
        std::str::from_utf8(row.1.hardware_report.as_deref().unwrap()).unwrap()
    }

    #[test]
    fn the_shipped_inventory_is_good() {
        let rows: Vec<Row> = Inventory::shipped("here").unwrap().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 48);
        assert!(
            rows.iter()
                .all(|(_, machine)| machine.address.is_some() && machine.location.is_some())
        );
        assert_eq!(report(&rows[0]), r#"{"id":"oak-01","model":"Anvil R2"}"#);
    }

    #[test]
    fn json_lines_keep_what_is_not_ours_as_it_came() {
        let (rows, wrong) = read(
            "m.jsonl",
            b"{\"hwid\":\"A1\",\"mem\":18446744073709551616.50,\"bios\":{\"v\": 1}}\n\n{\"hwid\":7}",
        );
        assert_eq!((ids(&rows), wrong), (vec!["A1", "7"], None));
        assert_eq!(report(&rows[0]), r#"{"bios":{"v": 1},"mem":18446744073709551616.50}"#);
        assert_eq!(
            (rows[1].0, rows[1].1.provider.as_str(), &rows[1].1.hardware_report),
            (3, "here", &None)
        );
    }

    #[test]
    fn the_format_is_known_by_its_name_or_its_content() {
        for (name, text) in [
            ("m", &b"{\"provider_id\":\"a\"}\n"[..]),
            ("m.txt", b"\xef\xbb\xbf {\"provider_id\":\"a\"}\n"),
            ("m.NDJSON", b"\xef\xbb\xbf{\"provider_id\":\"a\"}"),
            ("m", b"provider_id\na\n"),
            ("m.csv", b"\xef\xbb\xbfhwid\r\na\r\n"),
            ("m.csv", b"model , provider_id\n\"x\n y\", a"),
        ] {
            let (rows, wrong) = read(name, text);
            assert_eq!((ids(&rows), wrong), (vec!["a"], None), "{name}");
        }
    }

    #[test]
    fn one_bad_record_does_not_stop_those_after_it() {
        for (name, text, expected) in [
            (
                "m.csv",
                &b"hwid,x\na,1\n,,\nb\nc,3\n"[..],
                "m.csv, line 4: it has 1 fields; expected 2",
            ),
            ("m.csv", b"hwid,x\na,1\n\xff,2\nc,3\n", "m.csv, line 3: it is not UTF-8"),
            (
                "m.csv",
                b"hwid,x\na,1\n,2\nc,3\n",
                "m.csv, line 3: it has no provider_id",
            ),
            (
                "m",
                b"{\"hwid\":\"a\"}\n{\"hwid\":\n{\"hwid\":\"c\"}",
                "m, line 2: it is not one JSON object",
            ),
            (
                "m",
                b"{\"hwid\":\"a\"}\n{\"x\":1}\n{\"hwid\":\"c\"}",
                "m, line 2: it has no provider_id",
            ),
        ] {
            let (rows, wrong) = read(name, text);
            assert_eq!(ids(&rows), ["a", "c"], "{expected}");
            assert!(
                wrong.as_ref().is_some_and(|wrong| wrong.starts_with(expected)),
                "{wrong:?}"
            );
        }
        // What a spreadsheet leaves below its table is no record.
        let (rows, wrong) = read("m.csv", b"hwid,x,\na,1,\n,,\n , ,\nc,3,\n");
        assert_eq!((ids(&rows), wrong), (vec!["a", "c"], None));
    }

    #[test]
    fn other_formats_are_named_with_what_to_do() {
        for (text, expected) in [
            (
                &b"\x1f\x8b\x08\x00"[..],
                "m.csv: it is compressed with gzip; unpack it first",
            ),
            (b"PK\x03\x04\x14", "m.csv: it is a ZIP archive"),
            (b"\xff\xfeh\0w\0", "m.csv: it is UTF-16"),
            (
                b"hwid;address\na;b\n",
                "m.csv, line 1: the header has no column provider_id or hwid; it has \"hwid;address\", separated by semicolons",
            ),
            (
                b"provider_id,x,provider_id\na,1,b\n",
                "m.csv, line 1: the header has the column \"provider_id\" twice",
            ),
            (
                &b"[{\"hwid\":\"a\"}]"[..],
                "m, line 1: it is a JSON array; expected one object a line: jq -c '.[]' FILE",
            ),
            (b" [\n{\"hwid\":\"a\"}]", "m, line 1: it is a JSON array"),
            (
                b"{\"count\":1,\"results\":[{\"hwid\":\"a\"}]}",
                "m, line 1: it has no provider_id and no hwid, but a list in its field \"results\": jq -c '.results[]' FILE",
            ),
            (
                b"{\n  \"results\": [\n",
                "m, line 1: it is JSON over many lines; expected one object a line: jq -c . FILE",
            ),
            (
                b"{\"hwid\":\"a\",\"hwid\":\"b\"}",
                "m, line 1: it is not one JSON object: the key \"hwid\" stands twice",
            ),
            (
                b"{\"hwid\":\"a\",\"mem\":1,\"mem\":2}",
                "m, line 1: it is not one JSON object: the key \"mem\" stands twice",
            ),
        ] {
            let name = expected.split([':', ',']).next().expect("it begins with the name");
            let (rows, wrong) = read(name, text);
            let wrong = wrong.expect(expected);
            assert!(rows.is_empty() && wrong.starts_with(expected), "{expected}\n{wrong}");
        }
    }

    #[test]
    fn a_number_that_a_spreadsheet_has_shortened_is_no_serial() {
        for text in [
            &b"hwid,x\n1.23E+11,1\n"[..],
            b"hwid,x\n\"1,23E+11\",1\n",
            b"hwid,x\n1E+11,1\n",
            b"{\"hwid\":1.23e11}\n",
            b"{\"hwid\":\"4.5E-07\"}\n",
        ] {
            let (rows, wrong) = read("m", text);
            assert!(
                rows.is_empty()
                    && wrong
                        .as_ref()
                        .is_some_and(|wrong| wrong.contains("looks like a number that a spreadsheet has shortened")),
                "{wrong:?}"
            );
        }
        let (rows, wrong) = read("m", b"hwid,x\nE+11,1\n1E11,1\n2E+1A,1\nR1.2E+3,1\n123456789012345,1\n");
        assert_eq!(
            (ids(&rows), wrong),
            (vec!["E+11", "1E11", "2E+1A", "R1.2E+3", "123456789012345"], None)
        );
    }

    #[test]
    fn what_is_wrong_names_the_line_and_keeps_what_came_before() {
        let endless = [&b"{\"hwid\":\"a\"}\n"[..], &vec![b' '; 3 * LONGEST]].concat();
        let quoted = [&b"hwid\na\n\""[..], &vec![b'x'; 3 * LONGEST]].concat();
        for (name, text, good, expected) in [
            ("m", &b" \n"[..], 0, "m: the file is empty"),
            (
                "m.csv",
                b"name,address\n",
                0,
                "m.csv, line 1: the header has no column provider_id or hwid; it has \"name, address\"",
            ),
            (
                "m.csv",
                b"hwid,x\na,1\nb\n",
                1,
                "m.csv, line 3: it has 1 fields; expected 2",
            ),
            ("m.csv", b"hwid\na\nb\xff\n", 1, "m.csv, line 3: it is not UTF-8"),
            ("m.csv", b"hwid,x\na,1\n,2\n", 1, "m.csv, line 3: it has no provider_id"),
            ("m.csv", &quoted, 1, "m.csv, line 3: the record is longer than 1 MiB"),
            (
                "m",
                b"{\"hwid\":\"a\"}\n{\"hwid\":\n",
                1,
                "m, line 2: it is not one JSON object: EOF while parsing a value, column",
            ),
            (
                "m",
                b"{\"hwid\":\"a\"}\n{\"hwid\":\"\xff\"}\n",
                1,
                "m, line 2: it is not UTF-8",
            ),
            (
                "m",
                b"{\"hwid\":\"a\"}\n{\"hwid\":\"\"}\n",
                1,
                "m, line 2: it has no provider_id and no hwid",
            ),
            (
                "m",
                b"{\"hwid\":[1]}\n",
                0,
                "m, line 1: its hwid is neither text nor a number",
            ),
            ("m", &endless, 1, "m, line 2: the record is longer than 1 MiB"),
        ] {
            let (rows, wrong) = read(name, text);
            let wrong = wrong.unwrap();
            assert!(
                rows.len() == good && wrong.starts_with(expected),
                "{expected}\n{wrong} after {}",
                rows.len()
            );
        }
    }

    proptest! {
        #![proptest_config(Cases { cases: 256, failure_persistence: None, ..Cases::default() })]

        #[test]
        fn any_bytes_are_machines_or_an_error_with_its_line(
            name in prop_oneof!["m", "m\\.csv", "m\\.jsonl", "\\PC{0,8}"],
            head in prop_oneof![Just(Vec::new()), Just(b"hwid,address\n".to_vec()), Just(b"{\"hwid\":\"a\"}\n".to_vec()), Just(BOM.to_vec())],
            parts in proptest::collection::vec(
                prop_oneof!["[a-z0-9,\"{}:\\[\\] \r\n]{0,12}".prop_map(String::into_bytes), proptest::collection::vec(any::<u8>(), 0..12)],
                0..12,
            ),
        ) {
            let text = [head, parts.concat()].concat();
            let lines = text.split(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
            let source = Box::new(io::Cursor::new(text.clone()));
            match Inventory::read(name, source, text.len() as u64, "here") {
                // Of the whole file, or of its header.
                Err(error) => prop_assert!(error.line.is_none_or(|line| line == 1), "{error}"),
                Ok(inventory) => {
                    let (mut last, mut ended) = (0, false);
                    for row in inventory {
                        prop_assert!(!ended, "it goes on after an error that ends it");
                        let line = match row {
                            Ok((line, machine)) => {
                                prop_assert!(!machine.provider_id.is_empty());
                                line
                            }
                            Err(error) => {
                                ended = error.ends;
                                error.line.expect("an error of a record has its line")
                            }
                        };
                        // Lines are counted by their line feeds; in CSV a carriage return alone
                        // ends a record too, and the next one is still on the same line.
                        prop_assert!(line >= last && line <= lines, "line {line} after {last} of {lines}");
                        last = line;
                    }
                }
            }
        }
    }
}
