//! JSON-RPC 2.0: a request from a line, a line from an answer.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thinpost_client::{ContactError, CreateError, GrantError, OpenError, SendError, StoreError};

/// Longest line that is read, bytes: the largest message, however its characters are escaped.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// What went wrong with a request.
#[derive(Debug, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i32,
    pub(super) message: String,
    /// A word that names the error for programs.
    pub(super) kind: Option<&'static str>,
}

impl RpcError {
    pub(super) fn new(code: i32, kind: Option<&'static str>, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), kind }
    }

    pub(super) fn parse(message: impl ToString) -> Self {
        Self::new(-32700, None, message)
    }

    pub(super) fn invalid_request(message: &str) -> Self {
        Self::new(-32600, None, message)
    }

    fn unknown_method(method: &str) -> Self {
        Self::new(-32601, None, format!("there is no method {method:?}"))
    }

    pub(super) fn params(message: impl ToString) -> Self {
        Self::new(-32602, None, message)
    }

    pub(super) fn ticket(error: impl ToString) -> Self {
        Self::new(-32004, Some("bad-ticket"), error)
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        let kind = if error == StoreError::Full { "disk-full" } else { "store-failed" };
        Self::new(-32000, Some(kind), error)
    }
}

impl From<OpenError> for RpcError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::NoHome(_) => Self::new(-32001, Some("no-home"), error),
            OpenError::InUse => Self::new(-32002, Some("home-in-use"), error),
            OpenError::KeyNeeded => Self::new(-32008, Some("key-needed"), error),
            OpenError::WrongKey => Self::new(-32008, Some("wrong-key"), error),
            OpenError::HasNoKey => Self::new(-32008, Some("no-key-set"), error),
            OpenError::KeyGone => Self::new(-32001, Some("home-wiped"), error),
            OpenError::FileGone(_) => Self::new(-32001, Some("file-gone"), error),
            OpenError::Store(error) => error.into(),
            _ => Self::new(-32000, Some("store-failed"), error),
        }
    }
}

impl From<CreateError> for RpcError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists(_) => Self::new(-32003, Some("home-exists"), error),
            CreateError::NotARelay => Self::ticket(error),
            CreateError::Store(error) => error.into(),
            _ => Self::new(-32000, Some("store-failed"), error),
        }
    }
}

impl From<SendError> for RpcError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::UnknownContact(_) => Self::new(-32005, Some("unknown-contact"), error),
            SendError::TooLong(_) => Self::new(-32006, Some("too-long"), error),
            SendError::Empty => Self::new(-32006, Some("empty"), error),
            SendError::Store(error) => error.into(),
            _ => Self::new(-32000, Some("store-failed"), error),
        }
    }
}

impl From<ContactError> for RpcError {
    fn from(error: ContactError) -> Self {
        match error {
            ContactError::Unknown(_) => Self::new(-32005, Some("unknown-contact"), error),
            ContactError::Store(error) => error.into(),
            ContactError::BadName => Self::new(-32007, Some("bad-name"), error),
            ContactError::OwnTicket => Self::new(-32007, Some("own-ticket"), error),
            ContactError::NoRequest => Self::new(-32005, Some("no-request"), error),
            ContactError::OtherRelay => Self::new(-32007, Some("other-relay"), error),
            _ => Self::new(-32007, Some("contact-exists"), error),
        }
    }
}

impl From<GrantError> for RpcError {
    fn from(error: GrantError) -> Self {
        match error {
            GrantError::BadName => Self::new(-32007, Some("bad-name"), error),
            GrantError::NameTaken(_) => Self::new(-32007, Some("contact-exists"), error),
            GrantError::Unknown(_) => Self::new(-32009, Some("unknown-ticket"), error),
            GrantError::Store(error) => error.into(),
            _ => Self::new(-32000, Some("store-failed"), error),
        }
    }
}

/// A request with its id; one without an id wants no answer.
#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) id: Option<Value>,
    pub(super) call: Result<Call, RpcError>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Call {
    Init(TicketParams),
    Ticket(TicketForParams),
    TicketList,
    TicketRevoke(NameParams),
    TicketRenew(RenewParams),
    ContactAdd(ContactParams),
    ContactList,
    ContactRemove(NameParams),
    ContactReceipts(ReceiptsParams),
    ContactIntroduce(NameParams),
    ContactRequests,
    ContactAccept(AcceptParams),
    ContactDismiss(DismissParams),
    TicketGuest(GuestParams),
    Send(SendParams),
    Read(ReadParams),
    Sync(SyncParams),
    Status,
    Acknowledge(AcknowledgeParams),
    Connect(ConnectParams),
    Disconnect,
    Inbox(InboxParams),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketParams {
    pub(super) ticket: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketForParams {
    #[serde(rename = "for")]
    pub(super) name: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenewParams {
    #[serde(default)]
    pub(super) all: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NameParams {
    pub(super) name: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ContactParams {
    pub(super) name: String,
    pub(super) ticket: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SendParams {
    pub(super) to: String,
    pub(super) text: Option<String>,
    /// Base64.
    pub(super) data: Option<String>,
    /// Hex.
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) relay_visible: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReceiptsParams {
    pub(super) name: String,
    pub(super) receipts: bool,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptParams {
    /// Hex.
    pub(super) account: String,
    pub(super) name: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DismissParams {
    /// Hex.
    pub(super) account: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GuestParams {
    pub(super) name: String,
    pub(super) invite: String,
    pub(super) own_name: String,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadParams {
    pub(super) contact: String,
    pub(super) upto: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AcknowledgeParams {
    pub(super) upto: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncParams {
    #[serde(default = "SyncParams::for_s_default")]
    pub(super) for_s: u32,
    pub(super) bytes: Option<u64>,
}

impl SyncParams {
    fn for_s_default() -> u32 {
        25
    }
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectParams {
    pub(super) after: Option<u64>,
    /// As it was, if not given.
    pub(super) reachable: Option<bool>,
    /// As it was, if not given.
    pub(super) saver: Option<bool>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InboxParams {
    #[serde(default)]
    pub(super) after: u64,
    #[serde(default = "InboxParams::max_default")]
    pub(super) max: u16,
}

impl InboxParams {
    fn max_default() -> u16 {
        100
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParams {}

/// Reads a request; an error is one that cannot be laid to any request's id.
pub(super) fn parse(line: &[u8]) -> Result<Request, RpcError> {
    let value: Value = serde_json::from_slice(line).map_err(RpcError::parse)?;
    let Value::Object(mut object) = value else {
        return Err(RpcError::invalid_request(if value.is_array() {
            "batches are not served: send one request a line"
        } else {
            "a request is an object"
        }));
    };
    let id = object.remove("id");
    // As another number it would not come back as it was.
    let is_whole = |id: &Value| id.is_i64() || id.is_u64();
    if id.as_ref().is_some_and(|id| !(id.is_string() || is_whole(id) || id.is_null())) {
        return Err(RpcError::invalid_request("an id is a string, a whole number of 64 bits or null"));
    }
    let is_of_version = object.get("jsonrpc").is_some_and(|version| version == "2.0");
    let problem = match object.remove("method") {
        _ if !is_of_version => "\"jsonrpc\" must be \"2.0\"",
        Some(Value::String(method)) => {
            return Ok(Request { id, call: call(&method, object.remove("params")) });
        }
        _ => "\"method\" must be a string",
    };
    let error = RpcError::invalid_request(problem);
    // What is no request is answered though it has no id: it may not have been meant as a notification.
    if id.is_some() { Ok(Request { id, call: Err(error) }) } else { Err(error) }
}

fn call(method: &str, params: Option<Value>) -> Result<Call, RpcError> {
    fn read<T: DeserializeOwned>(params: Option<Value>) -> Result<T, RpcError> {
        match params.unwrap_or_else(|| json!({})) {
            object @ Value::Object(_) => serde_path_to_error::deserialize(object).map_err(RpcError::params),
            _ => Err(RpcError::params("parameters are given by name, as an object")),
        }
    }
    let none = |call: Call, params| read::<NoParams>(params).map(|_| call);
    match method {
        "init" => read(params).map(Call::Init),
        "ticket" => read(params).map(Call::Ticket),
        "ticket.list" => none(Call::TicketList, params),
        "ticket.revoke" => read(params).map(Call::TicketRevoke),
        "ticket.renew" => read(params).map(Call::TicketRenew),
        "contact.add" => read(params).map(Call::ContactAdd),
        "contact.list" => none(Call::ContactList, params),
        "contact.remove" => read(params).map(Call::ContactRemove),
        "contact.receipts" => read(params).map(Call::ContactReceipts),
        "contact.introduce" => read(params).map(Call::ContactIntroduce),
        "contact.requests" => none(Call::ContactRequests, params),
        "contact.accept" => read(params).map(Call::ContactAccept),
        "contact.dismiss" => read(params).map(Call::ContactDismiss),
        "ticket.guest" => read(params).map(Call::TicketGuest),
        "send" => read(params).map(Call::Send),
        "read" => read(params).map(Call::Read),
        "sync" => read(params).map(Call::Sync),
        "status" => none(Call::Status, params),
        "acknowledge" => read(params).map(Call::Acknowledge),
        "connect" => read(params).map(Call::Connect),
        "disconnect" => none(Call::Disconnect, params),
        "inbox" => read(params).map(Call::Inbox),
        other => Err(RpcError::unknown_method(other)),
    }
}

/// The answer to a request.
pub(super) fn response(id: &Value, result: Result<Value, RpcError>) -> String {
    let answer = match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(RpcError { code, message, kind }) => {
            let mut error = json!({ "code": code, "message": message });
            if let Some(kind) = kind {
                error["data"] = json!({ "kind": kind });
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    };
    answer.to_string()
}

/// What is said unasked.
pub(super) fn notification(method: &str, params: Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> i32 {
        match parse(line.as_bytes()) {
            Err(error) => error.code,
            Ok(request) => request.call.unwrap_err().code,
        }
    }

    #[test]
    fn requests_are_read_with_ids_of_every_kind() {
        for (id, json) in [(Some(json!(1)), r#","id":1"#), (Some(json!("a")), r#","id":"a""#), (None, "")] {
            let line = format!(r#"{{"jsonrpc":"2.0","method":"status"{json}}}"#);
            assert_eq!(parse(line.as_bytes()), Ok(Request { id, call: Ok(Call::Status) }));
        }
    }

    #[test]
    fn parameters_have_defaults() {
        let call = |line: &str| parse(line.as_bytes()).unwrap().call.unwrap();
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","id":1,"method":"sync"}"#),
            Call::Sync(SyncParams { for_s: 25, bytes: None })
        );
        assert_eq!(
            call(r#"{"jsonrpc":"2.0","id":1,"method":"inbox","params":{"after":7}}"#),
            Call::Inbox(InboxParams { after: 7, max: 100 })
        );
    }

    #[test]
    fn a_parameter_that_does_not_fit_is_named() {
        let line = br#"{"jsonrpc":"2.0","id":1,"method":"sync","params":{"for_s":-1}}"#;
        let error = parse(line).unwrap().call.unwrap_err();
        assert!(error.message.starts_with("for_s: invalid value: integer `-1`"), "{}", error.message);
    }

    #[test]
    fn every_fault_has_the_code_of_the_standard() {
        assert_eq!(code("{"), -32700);
        assert_eq!(code(r#"[{"jsonrpc":"2.0","method":"status","id":1}]"#), -32600);
        assert_eq!(code("7"), -32600);
        assert_eq!(code(r#"{"method":"status","id":1}"#), -32600);
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":7,"id":1}"#), -32600);
        // Without an id, this is answered as well.
        assert_eq!(parse(b"{}").map_err(|error| error.code), Err(-32600));
        assert!(parse(br#"{"jsonrpc":"2.0","method":"fly"}"#).is_ok());
        for id in ["{}", "1.5", "123456789012345678901234567890"] {
            assert_eq!(code(&format!(r#"{{"jsonrpc":"2.0","method":"status","id":{id}}}"#)), -32600);
        }
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":"fly","id":1}"#), -32601);
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":"send","id":1}"#), -32602);
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":"send","params":["bob","hi"],"id":1}"#), -32602);
        assert_eq!(code(r#"{"jsonrpc":"2.0","method":"status","params":{"x":1},"id":1}"#), -32602);
    }

    #[test]
    fn errors_of_our_own_carry_a_word_for_programs() {
        let error = RpcError::from(SendError::UnknownContact("bob".into()));
        let answer: Value = serde_json::from_str(&response(&json!(3), Err(error))).unwrap();
        assert_eq!(answer["error"]["code"], -32005);
        assert_eq!(answer["error"]["data"]["kind"], "unknown-contact");
        assert_eq!(answer["id"], 3);
    }
}
