//! A relay's configuration: what is read is printed as what reads as the same, and errors name a place that is there.

use std::path::Path;

use thinpost_gateway::config::{Config, ConfigError};

/// Reads a TOML file.
///
/// # Panics
/// When it is not printed as it was read, or an error names a line that is not there.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("gateway.toml");
    match Config::parse(text, path) {
        Ok(config) => {
            let again = Config::parse(&config.to_toml(), path).expect("what is printed is read");
            assert_eq!(again, config);
            let _ = (config.store_config(), config.group_limits(), config.server_limits());
        }
        Err(ConfigError::Invalid { line, column, .. }) => {
            let found = text.split('\n').nth(line - 1).expect("the line is there");
            assert!((1..=found.chars().count() + 1).contains(&column), "line {line}, column {column}");
        }
        Err(error) => assert!(matches!(error, ConfigError::Conflict(_)), "{error}"),
    }
}
