//! What the same texts would cost if nothing but their content had to travel.

use thinpost_netem::IP_UDP_HEADER_BYTES;
use thinpost_wire::codec::{self, DictionarySet};

/// Most text that is compressed in one run, bytes.
const CHUNK_BYTES: usize = 32 * 1024;

/// Bytes a message when all lines of one direction are compressed together and sent in one datagram.
pub(crate) fn bytes_per_message(directions: [&[String]; 2]) -> f64 {
    let mut bytes = 0;
    for lines in directions {
        let text = lines.join("\n");
        let mut coded = Vec::new();
        for chunk in text.as_bytes().chunks(CHUNK_BYTES) {
            codec::encode_best(chunk, DictionarySet::compiled_in(), &mut coded);
        }
        bytes += coded.len() + IP_UDP_HEADER_BYTES;
    }
    bytes as f64 / directions.map(<[String]>::len).iter().sum::<usize>() as f64
}
