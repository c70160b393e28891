//! The parts of a URL, each decoded.

use std::time::Duration;

use crate::UrlError;

/// What a URL says.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Names of parameters and values, as the driver knows them.
    pub(crate) for_driver: Vec<(String, String)>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// What the driver knows. It would log any other with its value, which may be a password.
const DRIVERS: &str = "sslmode ssl-mode sslrootcert ssl-root-cert ssl-ca sslcert ssl-cert sslkey ssl-key statement-cache-capacity port dbname user \
                       password application_name options";

type Result<T> = std::result::Result<T, UrlError>;

fn wrong<T>(reason: &'static str) -> Result<T> {
    Err(UrlError::Malformed(reason))
}

impl Parts {
    pub(crate) fn of(url: &str) -> Result<Self> {
        let Some((_scheme, rest)) = url.split_once("://") else {
            return wrong("it cannot be read as a URL");
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        // A password that is not encoded ends at its first `/`, `?` or `#`, and its rest would be shown as a host's or database's name.
        if path.contains('@') || query.contains('@') || url.contains('#') {
            return wrong(
                "there is an @ after its first / or ?, or a #; in a password or a name, write / as %2F, ? as %3F, # as %23 and @ as %40",
            );
        }
        let mut parts = Self::default();
        let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        parts.say("user", user)?;
        parts.say("password", password)?;
        parts.place(place)?;
        parts.say("dbname", path)?;
        let mut address = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return wrong("a parameter has no value");
            };
            let (name, value) = (decoded(name)?, decoded(value)?);
            match name.as_str() {
                "host" => parts.host(value)?,
                "hostaddr" if value.parse::<std::net::IpAddr>().is_err() => return wrong("its hostaddr is no address"),
                "hostaddr" => address = Some(value),
                _ => parts.parameter(name, value)?,
            }
        }
        // Where both are named, libpq connects to the address. The driver knows no other name to prove then, so the proof fails and nothing is believed.
        if let Some(address) = address {
            parts.host(address)?;
        }
        let says = |wanted: &str| parts.for_driver.iter().any(|(name, _)| name == wanted);
        if !says("host") {
            return wrong("it names no host");
        }
        if !says("dbname") {
            return wrong("it names no database");
        }
        Ok(parts)
    }

    /// What stands before the path: a host and a port, each of which may be absent.
    fn place(&mut self, place: &str) -> Result<()> {
        if place.contains(',') {
            return wrong(SEVERAL);
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((host, _)) if host.parse::<std::net::Ipv6Addr>().is_err() => {
                    return wrong("what stands in brackets is no IPv6 address");
                }
                Some((host, "")) => (host, ""),
                Some((host, rest)) if rest.starts_with(':') => (host, &rest[1..]),
                _ => return wrong("its IPv6 address has no closing bracket, or something other than a port after it"),
            },
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if !port.is_empty() {
            self.parameter("port".to_owned(), port.to_owned())?;
        }
        match decoded(host)? {
            host if host.is_empty() => Ok(()),
            host => self.host(host),
        }
    }

    fn host(&mut self, host: String) -> Result<()> {
        if host.contains(',') {
            return wrong(SEVERAL);
        }
        if host.is_empty() || host.contains(['@', '?']) {
            return wrong("it names no host");
        }
        // The last counts; the driver would keep a socket that came before.
        self.for_driver.retain(|(name, _)| name != "host");
        self.for_driver.push(("host".to_owned(), host));
        Ok(())
    }

    /// Something that may be absent.
    fn say(&mut self, name: &str, value: &str) -> Result<()> {
        if !value.is_empty() {
            self.for_driver.push((name.to_owned(), decoded(value)?));
        }
        Ok(())
    }

    fn parameter(&mut self, name: String, value: String) -> Result<()> {
        match (name.as_str(), value.as_str()) {
            ("port", value) if value.contains(',') => return wrong(SEVERAL),
            ("port", value) if value.parse::<u16>().is_err() => return wrong("its port is not a number below 65536"),
            // Nothing and zero wait for ever, and one second is too short for libpq, too.
            ("connect_timeout", value) => {
                let Ok(seconds) = value.parse::<i32>() else {
                    return wrong("its connect_timeout is not a number of seconds");
                };
                let seconds = u64::try_from(seconds).unwrap_or(0);
                self.connect_timeout = (seconds > 0).then(|| Duration::from_secs(seconds.max(2)));
                return Ok(());
            }
            ("channel_binding", "disable" | "prefer") | ("target_session_attrs", "any" | "read-write" | "primary") => {
                return Ok(());
            }
            ("channel_binding", "require") => {
                return wrong("channel_binding=require is not supported; sslmode=verify-full proves the server");
            }
            ("channel_binding", _) => return wrong("its channel_binding is none of disable and prefer"),
            ("target_session_attrs", _) => {
                return wrong("its target_session_attrs is none of any, read-write and primary: BMDB writes");
            }
            (known, _) if known.starts_with("options[") || DRIVERS.split(' ').any(|driver| driver == known) => {}
            (unknown, _) if is_a_name(unknown) => return Err(UrlError::Parameter(name)),
            _ => return wrong("a parameter is none that we take"),
        }
        self.for_driver.push((name, value));
        Ok(())
    }
}

const SEVERAL: &str = "it names several hosts, which is not supported; use one name that leads to the primary, such as a virtual address, DNS or a proxy";

/// Whether it can be shown: what has another form may be a part of a password.
fn is_a_name(parameter: &str) -> bool {
    (1..=40).contains(&parameter.len())
        && parameter
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'))
}

/// Undoes percent signs, and nothing else: a plus is a plus, as for libpq.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = others.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits
            .filter(|digits| !digits.starts_with('+'))
            .map(|digits| u8::from_str_radix(digits, 16))
        {
            Some(Ok(byte)) if byte != 0 => bytes.push(byte),
            _ => return wrong("there is a % without the two digits of a character after it; write % itself as %25"),
        }
        rest = &others[2..];
    }
    String::from_utf8(bytes).or(wrong("what its percent signs spell is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(url: &str) -> Vec<(String, String)> {
        Parts::of(url).expect(url).for_driver
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn urls_are_read_as_libpq_reads_them() {
        for (url, wanted) in [
            (
                "postgres://u@[::1]:5432/db",
                pairs(&[("user", "u"), ("port", "5432"), ("host", "::1"), ("dbname", "db")]),
            ),
            (
                "postgres://u:p%40@/db?host=/sock",
                pairs(&[("user", "u"), ("password", "p@"), ("dbname", "db"), ("host", "/sock")]),
            ),
            (
                "postgres:///db?host=%2Fsock&port=6",
                pairs(&[("dbname", "db"), ("host", "/sock"), ("port", "6")]),
            ),
            ("postgresql://%2Fsock/db", pairs(&[("host", "/sock"), ("dbname", "db")])),
            (
                "postgres://h?dbname=a+b&user=%25",
                pairs(&[("host", "h"), ("dbname", "a+b"), ("user", "%")]),
            ),
            (
                "postgres://h/db?hostaddr=10.0.0.1&host=name",
                pairs(&[("dbname", "db"), ("host", "10.0.0.1")]),
            ),
            (
                "postgres://h/db?channel_binding=prefer&target_session_attrs=read-write&sslmode=verify-full",
                pairs(&[("host", "h"), ("dbname", "db"), ("sslmode", "verify-full")]),
            ),
        ] {
            assert_eq!(driver(url), wanted, "{url}");
        }
    }

    #[test]
    fn a_connection_may_take_as_long_as_the_url_says() {
        for (said, seconds) in [("10", Some(10)), ("1", Some(2)), ("0", None), ("-1", None)] {
            let parts = Parts::of(&format!("postgres://h/db?connect_timeout={said}")).expect(said);
            assert_eq!(parts.connect_timeout, seconds.map(Duration::from_secs), "{said}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_is_shown() {
        for (url, named) in [
            ("postgres://u:canary@h1:1,h2:2/db", "several hosts"),
            ("postgres://u:canary@h/db?host=a,b", "several hosts"),
            ("postgres://u:canary@h/db?gssencmode=canary", "\"gssencmode\""),
            ("postgres://u:canary@h/db?pasword=canary", "\"pasword\""),
            ("postgres://u:canary@h/db?Canary!=canary", "a parameter is none"),
            (
                "postgres://u:canary@h/db?channel_binding=require",
                "channel_binding=require is not supported",
            ),
            ("postgres://u:canary@h/db?channel_binding=canary", "channel_binding"),
            (
                "postgres://u:canary@h/db?target_session_attrs=standby",
                "target_session_attrs",
            ),
            ("postgres://u:canary@h/db?connect_timeout=canary", "connect_timeout"),
            ("postgres://u:canary@h/db?canary", "has no value"),
            ("postgres://u:canary@h:canary/db", "its port"),
            ("postgres://u:canary@h:99999/db", "its port"),
            ("postgres://u:canary@[::1/db", "bracket"),
            ("postgres://u:canary@[canary]/db", "no IPv6 address"),
            ("postgres://u:canary@[::1]5432/db", "bracket"),
            ("postgres://u:canary@/db", "names no host"),
            ("postgres://u:canary@h", "names no database"),
            ("postgres://u:can%ary@h/db", "%25"),
            ("postgres://u:can%00ary@h/db", "%25"),
            ("postgres://u:can%FFary@h/db", "UTF-8"),
            ("postgres://u:p?canary@h/db", "an @ after"),
            ("postgres:canary", "cannot be read"),
        ] {
            let error = Parts::of(url).expect_err(url);
            let shown = format!("{error} {error:?}");
            assert!(
                shown.contains(named) && !shown.contains("canary"),
                "{url} gives {shown}"
            );
        }
    }
}
