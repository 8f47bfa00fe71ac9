//! Reads the configuration file, YAML or JSON by its extension, into plain nodes.
//!
//! Owns `Node`. Called by `sources` and by the parsers of settings that are not plain texts; calls the two format
//! crates. Every scalar stays a text, so that one parser per setting serves file, variable and flag alike, and a
//! `port` may be a string or a number. A key that comes twice is a mistake in both formats.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::sources::Report;

/// A value of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Nothing, which is the same as leaving the key out.
    Null,
    /// A text, a number or a truth value, as text.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and their values, in the order of the file.
    Map(Vec<(String, Node)>),
}

/// The fields of a map whose keys have been looked at.
pub(super) struct Fields<'a>(&'a [(String, Node)]);

impl Node {
    /// Tells whether a value says nothing: go-proxy takes an empty text for a missing one.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Scalar(text) => text.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(fields) => fields.is_empty(),
        }
    }

    /// Returns the map's fields, after reporting those that are not `known`. Reports a node that is no map.
    pub(super) fn fields(&self, known: &[&str], report: &mut Report) -> Option<Fields<'_>> {
        match self {
            Self::Map(fields) => {
                for (key, _) in fields {
                    if !known.contains(&key.as_str()) {
                        report.mistake(unknown_key(key, known));
                    }
                }
                Some(Fields(fields))
            }
            Self::Null => Some(Fields(&[])),
            Self::Scalar(_) | Self::List(_) => {
                report.mistake_none(&format!("not a map with the keys {}", known.join(", ")))
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// Tells whether no field says anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|(_, node)| node.is_empty())
    }

    /// Returns the value of a key, if it says anything.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.0.iter().find(|(name, node)| name == key && !node.is_empty()).map(|(_, node)| node)
    }

    /// Returns the text of a key, and reports if there is none.
    pub(super) fn required(&self, key: &str, report: &mut Report) -> Option<&'a str> {
        match self.node(key) {
            Some(Node::Scalar(text)) => Some(text),
            Some(Node::Null | Node::List(_) | Node::Map(_)) => report.mistake_none(&format!("{key}: not a text")),
            None => report.mistake_none(&format!("{key}: missing")),
        }
    }
}

/// Says that a key is unknown, and which known one may have been meant.
pub(super) fn unknown_key(key: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|name| (strsim::osa_distance(key, name), name)).min();
    match nearest {
        Some((distance, name)) if distance <= 1 + key.len() / 4 => {
            format!("{key}: unknown key; did you mean {name}?")
        }
        _ => format!("{key}: unknown key; known are {}", known.join(", ")),
    }
}

/// Reads the text of a configuration file into its top-level keys.
///
/// # Errors
/// A text for the person: where the format is broken, never what stands there.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<(String, Node)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
    let root = match extension.as_str() {
        "json" => serde_json::from_str::<Node>(text).map_err(|error| format!("not valid JSON: {error}"))?,
        "yaml" | "yml" => yaml_serde::from_str::<Node>(text).map_err(|error| format!("not valid YAML: {error}"))?,
        _ => return Err("the name must end in .yaml, .yml or .json".to_owned()),
    };
    match root {
        Node::Null => Ok(Vec::new()),
        Node::Map(fields) => Ok(fields),
        Node::Scalar(_) | Node::List(_) => Err("not a map of settings".to_owned()),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a number, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    // YAML's empty value comes as an absent one.
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut fields: Vec<(String, Node)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Node, Node>()? {
            let Node::Scalar(key) = key else {
                return Err(serde::de::Error::custom("a key is not a text"));
            };
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(serde::de::Error::custom(format!("the key {key} comes twice")));
            }
            fields.push((key, value));
        }
        Ok(Node::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalar(text: &str) -> Node {
        Node::Scalar(text.to_owned())
    }

    /// YAML and JSON of the same content give the same nodes; numbers, truth values and words stay texts.
    #[test]
    fn both_formats_agree() {
        let yaml = "port: 12345\nlog_requests: true\ngosumdb: off\nupstreams: [a, 'b']\nauth:\n  type: x\nempty:\n";
        let json = "\u{feff}{\"port\": 12345, \"log_requests\": true, \"gosumdb\": \"off\", \"upstreams\": [\"a\", \"b\"], \
                    \"auth\": {\"type\": \"x\"}, \"empty\": null}";
        let nodes = parse(Path::new("c.yaml"), yaml).unwrap();
        assert_eq!(nodes, parse(Path::new("c.JSON"), json).unwrap());
        assert_eq!(nodes[0], ("port".to_owned(), scalar("12345")));
        assert_eq!(nodes[2], ("gosumdb".to_owned(), scalar("off")));
        assert_eq!(nodes[3].1, Node::List(vec![scalar("a"), scalar("b")]));
        assert_eq!(nodes[5].1, Node::Null);
        assert_eq!(parse(Path::new("empty.yml"), "# nothing\n").unwrap(), Vec::new());
    }

    /// Broken files say where, wrong shapes and endings what was expected, and none repeats the content.
    #[test]
    fn broken_files() {
        let cases = [
            ("c.toml", "port = 1", "must end in .yaml, .yml or .json"),
            ("c", "", "must end in"),
            ("c.yaml", "a: [s3cret", "line"),
            ("c.yaml", "a: 1\na: s3cret", "the key a comes twice"),
            ("c.json", "{\"a\": 1, \"a\": 2}", "the key a comes twice"),
            ("c.json", "{\"a\": s3cret}", "line 1"),
            ("c.json", "", "not valid JSON"),
            ("c.yaml", "- s3cret", "not a map of settings"),
            ("c.yaml", "[s3cret]: 1", "a key is not a text"),
            ("c.yaml", "a: !s3cret x", "not valid YAML"),
        ];
        for (path, text, expected) in cases {
            let mistake = parse(Path::new(path), text).unwrap_err();
            assert!(mistake.contains(expected) && !mistake.contains("s3cret"), "{text}: {mistake}");
        }
    }

    /// A near miss names what was meant; anything else names all there is.
    #[test]
    fn did_you_mean() {
        let known = ["port", "cache_dir", "max_cache_age"];
        assert_eq!(unknown_key("max_cach_age", &known), "max_cach_age: unknown key; did you mean max_cache_age?");
        assert_eq!(unknown_key("prot", &known), "prot: unknown key; did you mean port?");
        assert!(unknown_key("colour", &known).contains("known are port, cache_dir, max_cache_age"));
    }
}
