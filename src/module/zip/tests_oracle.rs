//! Go as the oracle: thousands of zips, good, odd and damaged, judged and hashed by Go's own libraries and by this crate.
//!
//! The program that asks them is `tests/tools/oracle`, built here by the go command. The seeds are fixed, so a difference
//! comes back.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine};
use fastrand::Rng;
use serde_json::{Value, json};

use super::hash::*;
use super::rules::check_rules;
use super::stream::StreamHasher;
use super::tests_archive::*;
use super::unicode::{fold, is_letter};
use super::*;

/// Puts questions to Go, and returns what it answers to each.
fn ask(questions: Vec<Value>) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("oracle");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/oracle");
    let build = Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(source).output().unwrap();
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    let mut oracle = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = oracle.stdin.take().unwrap();
    let count = questions.len();
    let writer =
        std::thread::spawn(move || questions.iter().for_each(|question| writeln!(stdin, "{question}").unwrap()));
    let lines = BufReader::new(oracle.stdout.take().unwrap()).lines();
    let answers: Vec<Value> =
        lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["ok"].take()).collect();
    writer.join().unwrap();
    assert!(oracle.wait().unwrap().success());
    assert_eq!(answers.len(), count);
    answers
}

fn archives(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut generator = Rng::with_seed(seed);
    let mut make = |number: usize| {
        let mut bytes = made_up(&mut generator);
        if number % 5 >= 2 {
            damage(&mut generator, &mut bytes);
        }
        bytes
    };
    (0..count).map(&mut make).collect()
}

/// Compares verdict and hash for each zip, and returns how many of them Go hashed, and how many it found good.
fn compare(zips: &[Vec<u8>]) -> (usize, usize) {
    let module = ModuleVersion::parse("example.com/m@v1.0.0").unwrap();
    let question = |zip: &Vec<u8>| json!({"op": "zip", "path": "example.com/m", "version": "v1.0.0", "zip": BASE64_STANDARD.encode(zip)});
    let (mut hashed, mut good) = (0, 0);
    for (number, (zip, answer)) in zips.iter().zip(ask(zips.iter().map(question).collect())).enumerate() {
        let text = |key: &str| answer[key].as_str().unwrap().to_owned();
        let shown = || format!("zip {number}: {answer} {}", BASE64_STANDARD.encode(zip));
        let rules = check_rules(&zip[..], zip.len() as u64, &module);
        assert_eq!(rules.is_ok(), text("check_error").is_empty(), "{rules:?} {}", shown());
        good += usize::from(rules.is_ok());
        for prefix in ["", PREFIX] {
            let result = hash(&zip[..], zip.len() as u64, prefix);
            let is_outside = matches!(result, Err(HashError::Zip(ZipError::Prefix { .. }))) && !prefix.is_empty();
            // Sizes beyond all modules are refused at once; Go finds out when there is less.
            let is_large = matches!(result, Err(HashError::Zip(ZipError::UnpackedTooLarge { .. })));
            let ours = result.as_ref().map(H1::to_string).unwrap_or_default();
            assert!(is_outside || ours == text("h1"), "{result:?} {}", shown());
            assert!(!is_large || !text("check_error").is_empty(), "{}", shown());
            let mut stream = StreamHasher::new(prefix);
            let piece_bytes = 1 + number % 97;
            if zip.chunks(piece_bytes).try_for_each(|piece| stream.push(piece)).is_ok()
                && let Ok(streamed) = stream.finish()
            {
                assert_eq!(streamed.to_string(), text("h1"), "{}", shown());
            }
            let mut runs: Vec<Vec<u8>> = Vec::new();
            let written = write_runs(&zip[..], zip.len() as u64, prefix, |run| {
                runs.push(Vec::new());
                runs.last_mut().map_or(Ok(()), |kept| run.write_to(kept)).map_err(|err| HashError::Zip(err.into()))
            });
            let mut readers: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
            let merged = written.and_then(|()| merge_runs(&mut readers, prefix));
            assert_eq!(merged.ok(), result.ok(), "{}", shown());
        }
        // What is refused today is only what Go refuses, but for the exceptions that the header of `zip` names.
        if let Err(error) = check_structure(&zip[..], zip.len() as u64, &module)
            && rules.is_ok()
            && !text("h1").is_empty()
        {
            assert!(matches!(error, ZipError::TrailingBytes { .. }), "{error} {}", shown());
        }
        hashed += usize::from(!text("h1").is_empty());
    }
    (hashed, good)
}

/// Go's `dirhash.HashZip` and `zip.CheckZip`, and the code here, agree on every one of 6,000 zips: hash, accept, reject.
#[test]
fn zips_are_judged_and_hashed_as_go_does() {
    let zips = archives(5, 6_000);
    let (hashed, good) = compare(&zips);
    // Neither all nor none, else nothing was compared.
    for count in [hashed, good] {
        assert!((zips.len() / 5..zips.len() * 4 / 5).contains(&count), "{count} of {}", zips.len());
    }
}

/// What an upstream can do to the deflated data alone, Go's inflate and the one used here take for the same.
#[test]
fn deflated_data_is_judged_as_go_does() {
    let mut generator = Rng::with_seed(11);
    let mut zips = Vec::new();
    for number in 0..1_500 {
        let content: Vec<u8> = (0..generator.usize(1..400)).map(|_| generator.u8(..4) * generator.u8(..60)).collect();
        let item = Item { has_descriptor: false, ..Item::new("a", &content) };
        let mut bytes = plain(std::slice::from_ref(&item));
        let data = super::directory::LOCAL_BYTES + item.name.len();
        for _ in 0..=number % 3 {
            // Mostly the first bytes: the kinds of blocks and the code tables.
            let span = [12, deflated(&content).len()][generator.usize(..2)];
            bytes[data + generator.usize(..span.min(deflated(&content).len()))] ^= 1 << generator.u8(..8);
        }
        // Without a CRC nothing but the decoder itself can refuse, as long as the size comes out right.
        for at in (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect::<Vec<_>>() {
            bytes[at + 16..at + 20].fill(0);
        }
        zips.push(bytes);
    }
    let (hashed, _) = compare(&zips);
    assert!((100..1_400).contains(&hashed), "{hashed}");
}

/// Letters and case folding are those of the Go at hand; with other Unicode tables, only what is taken here is compared.
#[test]
fn characters_are_those_of_go() {
    let answer = ask(vec![json!({"op": "runes"})]).remove(0);
    let is_same = answer["version"] == "15.0.0";
    let pairs = |key: &str| -> Vec<(u32, u32)> { serde_json::from_value(answer[key].clone()).unwrap() };
    let (letters, folds) = (pairs("letters"), pairs("folds"));
    for c in '\0'..=char::MAX {
        let code = u32::from(c);
        let is_ours = is_letter(c);
        let after = letters.partition_point(|(first, _)| *first <= code);
        let is_go_s = c.is_ascii_alphabetic() || after > 0 && code <= letters[after - 1].1;
        assert!(is_ours == is_go_s || !is_same && !is_ours, "{c:?}");
        let folded = folds.binary_search_by_key(&code, |(from, _)| *from).map_or(code, |at| folds[at].1);
        assert!(u32::from(fold(c)) == folded || !is_same, "{c:?}");
    }
}
