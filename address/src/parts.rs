//! The parts of a URL, each decoded.

use std::time::Duration;

use crate::UrlError;

/// What a URL says.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Names of parameters and values, as the driver knows them; but for where the servers are.
    pub(crate) for_driver: Vec<(String, String)>,
    /// Where the servers are, in the order in which they are tried: host and, if the URL says it, port.
    pub(crate) servers: Vec<(String, Option<u16>)>,
    pub(crate) connect_timeout: Option<Duration>,
}

/// What the driver knows. It would log any other with its value, which may be a password.
const DRIVERS: &str = "sslmode ssl-mode sslrootcert ssl-root-cert ssl-ca sslcert ssl-cert sslkey ssl-key statement-cache-capacity dbname user \
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
        let (mut hosts, mut ports) = places(place)?;
        parts.say("dbname", path)?;
        let mut address = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return wrong("a parameter has no value");
            };
            let (name, value) = (decoded(name)?, decoded(value)?);
            // The last of a kind counts.
            match name.as_str() {
                "host" => hosts = value,
                "port" => ports = value,
                "hostaddr" if value.parse::<std::net::IpAddr>().is_err() => return wrong("its hostaddr is no address"),
                "hostaddr" => address = Some(value),
                _ => parts.parameter(name, value)?,
            }
        }
        // Where both are named, libpq connects to the address. The driver knows no other name to prove then, so the proof fails and nothing is believed.
        match address {
            Some(_) if hosts.contains(',') => return wrong("it has one hostaddr for several hosts"),
            Some(address) => hosts = address,
            None => {}
        }
        parts.servers = servers(&hosts, &ports)?;
        if !parts.for_driver.iter().any(|(name, _)| name == "dbname") {
            return wrong("it names no database");
        }
        Ok(parts)
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

/// The hosts and the ports that stand before the path, each with commas between them. Either may be empty.
fn places(text: &str) -> Result<(String, String)> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in text.split(',') {
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
        hosts.push(decoded(host)?);
        ports.push(port);
    }
    let ports = match ports.iter().all(|port| port.is_empty()) {
        true => String::new(),
        false => ports.join(","),
    };
    Ok((hosts.join(","), ports))
}

/// Each host with its port: there is none, one for all, or one for each, which may be empty.
fn servers(hosts: &str, ports: &str) -> Result<Vec<(String, Option<u16>)>> {
    let (hosts, ports): (Vec<&str>, Vec<&str>) = (hosts.split(',').collect(), ports.split(',').collect());
    if ports.len() != 1 && ports.len() != hosts.len() {
        return wrong("it names more hosts than ports, or fewer");
    }
    let server = |(host, port): (&&str, &&str)| match port.parse::<u16>() {
        _ if host.is_empty() && hosts.len() > 1 => wrong("one of its hosts is empty"),
        _ if host.is_empty() || host.contains(['@', '?']) => wrong("it names no host"),
        _ if host.starts_with('/') && hosts.len() > 1 => wrong("one of its several hosts is a socket of this machine"),
        Err(_) if !port.is_empty() => wrong("its port is not a number below 65536"),
        port => Ok(((*host).to_owned(), port.ok())),
    };
    hosts.iter().zip(ports.iter().cycle()).map(server).collect()
}

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

    /// With where the servers are as a last pair, as libpq would say it.
    fn driver(url: &str) -> Vec<(String, String)> {
        let parts = Parts::of(url).expect(url);
        let place = |(host, port): &(String, Option<u16>)| match port {
            Some(port) => format!("{host} {port}"),
            None => host.clone(),
        };
        let places: Vec<String> = parts.servers.iter().map(place).collect();
        let at = ("at".to_owned(), places.join(", "));
        parts.for_driver.into_iter().chain([at]).collect()
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
                pairs(&[("user", "u"), ("dbname", "db"), ("at", "::1 5432")]),
            ),
            (
                "postgres://u:p%40@/db?host=/sock",
                pairs(&[("user", "u"), ("password", "p@"), ("dbname", "db"), ("at", "/sock")]),
            ),
            (
                "postgres:///db?host=%2Fsock&port=6",
                pairs(&[("dbname", "db"), ("at", "/sock 6")]),
            ),
            ("postgresql://%2Fsock/db", pairs(&[("dbname", "db"), ("at", "/sock")])),
            (
                "postgres://h?dbname=a+b&user=%25",
                pairs(&[("dbname", "a+b"), ("user", "%"), ("at", "h")]),
            ),
            (
                "postgres://h/db?hostaddr=10.0.0.1&host=name",
                pairs(&[("dbname", "db"), ("at", "10.0.0.1")]),
            ),
            (
                "postgres://h/db?channel_binding=prefer&target_session_attrs=read-write&sslmode=verify-full",
                pairs(&[("dbname", "db"), ("sslmode", "verify-full"), ("at", "h")]),
            ),
            (
                "postgres://h1:1,h2:2/db",
                pairs(&[("dbname", "db"), ("at", "h1 1, h2 2")]),
            ),
            (
                "postgres://h1,[::1]:2,h3/db",
                pairs(&[("dbname", "db"), ("at", "h1, ::1 2, h3")]),
            ),
            (
                "postgres:///db?host=h1,h2&port=7",
                pairs(&[("dbname", "db"), ("at", "h1 7, h2 7")]),
            ),
            (
                "postgres://h0:1/db?host=h1,h2&port=7,8",
                pairs(&[("dbname", "db"), ("at", "h1 7, h2 8")]),
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
            ("postgres://u:canary@h1,,h2/db", "hosts is empty"),
            ("postgres://u:canary@h1,h2/db?port=1,2,3", "more hosts than ports"),
            ("postgres://u:canary@h1/db?host=a,/canary", "a socket"),
            ("postgres://u:canary@h1,h2/db?hostaddr=10.0.0.1", "one hostaddr"),
            ("postgres://u:canary@h1:1,h2:canary/db", "its port"),
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
