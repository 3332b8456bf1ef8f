//! Reading the values of a configuration, and finding where one stands in the file.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use toml::de::{DeTable, DeValue};

use super::{ConfigError, Conflict, LimitsConfig, PaceLimits};

/// A whole number from `MIN` to `MAX`, and the error that says so.
pub(super) fn between<'de, D, T, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    struct Between<const MIN: u64, const MAX: u64>;

    impl<const MIN: u64, const MAX: u64> Visitor<'_> for Between<MIN, MAX> {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from {MIN} to {MAX}")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
            if (MIN..=MAX).contains(&number) {
                Ok(number)
            } else {
                Err(E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<u64, E> {
            match u64::try_from(number) {
                Ok(number) => self.visit_u64(number),
                Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }
    }

    let number = deserializer.deserialize_any(Between::<MIN, MAX>)?;
    T::try_from(number).map_err(|_| D::Error::custom("the number is too large for this machine"))
}

/// What a file says of a pace; the rest keeps the default of the section it stands in.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PartialPace {
    #[serde(deserialize_with = "some_between::<_, 1, 1_000_000>")]
    messages_per_minute: Option<u32>,
    #[serde(deserialize_with = "some_between::<_, 1, 1_000_000>")]
    messages_burst: Option<u32>,
    #[serde(deserialize_with = "some_between::<_, 1_024, 1_000_000_000>")]
    bytes_per_minute: Option<u32>,
    #[serde(deserialize_with = "some_between::<_, 65_536, 1_000_000_000>")]
    bytes_burst: Option<u32>,
}

impl PartialPace {
    fn over(self, default: PaceLimits) -> PaceLimits {
        PaceLimits {
            messages_per_minute: self.messages_per_minute.unwrap_or(default.messages_per_minute),
            messages_burst: self.messages_burst.unwrap_or(default.messages_burst),
            bytes_per_minute: self.bytes_per_minute.unwrap_or(default.bytes_per_minute),
            bytes_burst: self.bytes_burst.unwrap_or(default.bytes_burst),
        }
    }
}

fn some_between<'de, D, const MIN: u64, const MAX: u64>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    between::<D, u32, MIN, MAX>(deserializer).map(Some)
}

pub(super) fn account_pace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PaceLimits, D::Error> {
    Ok(PartialPace::deserialize(deserializer)?.over(LimitsConfig::default().account))
}

pub(super) fn mailbox_pace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PaceLimits, D::Error> {
    Ok(PartialPace::deserialize(deserializer)?.over(LimitsConfig::default().mailbox))
}

pub(super) fn strangers_pace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PaceLimits, D::Error> {
    Ok(PartialPace::deserialize(deserializer)?.over(LimitsConfig::default().strangers))
}

/// A folder's name.
pub(super) fn folder<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if path.as_os_str().is_empty() {
        return Err(D::Error::invalid_value(Unexpected::Str(""), &"the name of a folder"));
    }
    Ok(Some(path))
}

/// A set of account keys, each as 64 hexadecimal digits.
pub(super) mod accounts {
    use std::collections::BTreeSet;

    use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
    use serde::de::{Deserializer, Error, Unexpected};
    use serde::{Deserialize, Serializer};
    use thinpost_wire::ids::AccountKey;

    struct Hex(AccountKey);

    impl<'de> Deserialize<'de> for Hex {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            parse(&text).map(Self).ok_or_else(|| {
                D::Error::invalid_value(Unexpected::Str(&text), &"an account's key as 64 hexadecimal digits")
            })
        }
    }

    pub(in crate::config) fn parse(text: &str) -> Option<AccountKey> {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(AccountKey)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<AccountKey>, D::Error> {
        Ok(Vec::<Hex>::deserialize(deserializer)?.into_iter().map(|Hex(key)| key).collect())
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        keys: &BTreeSet<AccountKey>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(keys.iter().map(|key| HEXLOWER.encode(&key.0)))
    }
}

/// Puts file, line, column and key to what the parser says.
pub(super) fn locate(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let table = DeTable::parse(text).ok();
    let found = table.as_ref().and_then(|table| key_at(table.get_ref(), span.start));
    let (key, span) = found.map_or((None, span), |(key, value)| (Some(key), value));
    // The parser's own message may run over lines; ours is one.
    let message = error.message().replace('\n', ", ");
    let problem = key.map_or_else(|| message.clone(), |key| format!("{key}: {message}"));
    invalid(text, path, span, problem)
}

/// Finds the line of the key that has to change; without one, the conflict stands for itself.
pub(super) fn locate_conflict(text: &str, path: &Path, conflict: Conflict) -> ConfigError {
    let table = DeTable::parse(text).ok();
    let span = table.as_ref().and_then(|table| {
        table.get_ref().iter().find(|(key, _)| key.get_ref() == conflict.key).map(|(key, _)| key.span())
    });
    match span {
        Some(span) => invalid(text, path, span, conflict.to_string()),
        None => ConfigError::Conflict(conflict),
    }
}

fn invalid(text: &str, path: &Path, span: Range<usize>, problem: String) -> ConfigError {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    ConfigError::Invalid {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        problem,
    }
}

/// The dotted key whose value covers the offset, and the span of that value; in a list, of its first
/// element that is not as it should be. A key itself is no value: the parser names it anyway.
fn key_at(table: &DeTable<'_>, offset: usize) -> Option<(String, Range<usize>)> {
    table.iter().find_map(|(key, value)| match value.get_ref() {
        // A table's span is its header's, so look inside each.
        DeValue::Table(inner) => {
            key_at(inner, offset).map(|(rest, span)| (format!("{}.{rest}", key.get_ref()), span))
        }
        _ if !value.span().contains(&offset) => None,
        DeValue::Array(elements) => {
            let wrong = elements.iter().find(|element| !is_element_of(key.get_ref(), element.get_ref()));
            Some((key.get_ref().to_string(), wrong.map_or(value.span(), |element| element.span())))
        }
        _ => Some((key.get_ref().to_string(), value.span())),
    })
}

/// Whether the list of this name takes the element.
fn is_element_of(key: &str, element: &DeValue<'_>) -> bool {
    match key {
        "advertise" => element.as_str().is_some_and(|text| text.parse::<SocketAddr>().is_ok()),
        _ => element.as_str().and_then(accounts::parse).is_some(),
    }
}
