//! The file that says who may sign in: a line each of a name, `read` or `write`, and the SHA-256 of a token, never the token.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::failure::Failure;
use crate::serve::access::Role;
use crate::serve::assets::hex;

/// Who may sign in.
#[derive(Debug)]
pub(crate) struct Tokens(Vec<Token>);

#[derive(Debug)]
struct Token {
    name: String,
    role: Role,
    /// In hexadecimal digits.
    digest: String,
}

impl Tokens {
    /// Reads the file.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("cannot read the tokens of {}: {error}", file.display())))?;
        Self::parse(&text).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))
    }

    /// Empty lines and those that begin with `#` are passed over.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // Nothing of the line is repeated: it may be a token that somebody has put here by mistake.
            tokens.push(token(line).ok_or_else(|| {
                format!("line {number} is not NAME, read or write, and the SHA-256 of a token in 64 hexadecimal digits")
            })?);
        }
        if tokens.is_empty() {
            return Err("it names nobody, so nobody could sign in".to_owned());
        }
        Ok(Self(tokens))
    }

    /// Whose token this is. All are compared, whichever it is.
    pub(super) fn holder(&self, token: &str) -> Option<(String, Role)> {
        let digest = hex(&Sha256::digest(token));
        let mut found = None;
        for token in &self.0 {
            if bool::from(token.digest.as_bytes().ct_eq(digest.as_bytes())) {
                found = Some((token.name.clone(), token.role));
            }
        }
        found
    }
}

fn token(line: &str) -> Option<Token> {
    let mut words = line.split_whitespace();
    let (name, role, digest) = (words.next()?, words.next()?, words.next()?);
    let role = match role {
        "read" => Role::Read,
        "write" => Role::Write,
        _ => return None,
    };
    let digest = digest.to_ascii_lowercase();
    let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_digest && words.next().is_none()).then(|| Token {
        name: name.to_owned(),
        role,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_digest_alone() {
        let digest = hex(&Sha256::digest("open sesame"));
        let tokens = Tokens::parse(&format!("# who\n\nada write {digest}\nbob read {}\n", "0".repeat(64))).unwrap();
        assert_eq!(tokens.holder("open sesame"), Some(("ada".to_owned(), Role::Write)));
        assert_eq!(tokens.holder("open sesame "), None);
        assert_eq!(tokens.holder(&digest), None);
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_repeated() {
        for bad in ["ada write secret", "ada admin 00", "ada write", "ada write 0 0"] {
            let said = Tokens::parse(bad).unwrap_err();
            assert!(
                said.starts_with("line 1 is not NAME") && !said.contains("secret"),
                "{said}"
            );
        }
        assert!(Tokens::parse("# nobody\n").is_err());
    }
}
