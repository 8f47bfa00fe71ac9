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

use super::content::{Next, WINDOW_BITS, inflate};
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
            assert!(is_outside || is_large || ours == text("h1"), "{result:?} {}", shown());
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
            assert!(
                matches!(error, ZipError::TrailingBytes { .. } | ZipError::LocalHeader { .. }),
                "{error} {}",
                shown()
            );
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

/// Inflates with the code here, at most a mebibyte, and returns length and CRC.
fn inflated(data: &[u8]) -> Option<(usize, u32)> {
    let (mut decoder, mut output) = (zlib_rs::Inflate::new(false, WINDOW_BITS), vec![0; 1000]);
    let (mut content, mut rest) = (Vec::new(), data);
    loop {
        let piece = inflate(&mut decoder, rest, &mut output);
        content.extend(&output[..piece.written]);
        rest = &rest[piece.read..];
        match piece.next {
            Next::End => break,
            Next::Again if content.len() > 1 << 20 => break,
            Next::Again => {}
            Next::Input | Next::Damaged => return None,
        }
    }
    content.truncate(1 << 20);
    Some((content.len(), crc32fast::hash(&content)))
}

/// Go's inflate and the one used here take the same deflated data, and make the same of it: blocks of every kind, with
/// bits changed in their headers, code tables and data, cut short, and pure noise.
#[test]
fn deflated_data_is_judged_as_go_does() {
    let mut generator = Rng::with_seed(11);
    let mut all = Vec::new();
    for number in 0..12_000 {
        let letters = generator.u8(1..60);
        let content: Vec<u8> =
            (0..generator.usize(1..600)).map(|_| generator.u8(..letters) * generator.u8(..4)).collect();
        let mut data = if number % 7 == 0 {
            (0..generator.usize(1..80)).map(|_| generator.u8(..)).collect()
        } else {
            deflated(&content)
        };
        if number % 5 == 0 {
            // A stored block before it, and what follows looks back into it.
            data.splice(0..0, [0, 3, 0, 0xfc, 0xff, 1, 2, 3]);
        }
        for _ in 0..number % 4 {
            // Mostly the first bytes: the kinds of blocks and the code tables.
            let span = [data.len().min(3), data.len().min(40), data.len()][generator.usize(..3)];
            data[generator.usize(..span)] ^= 1 << generator.u8(..8);
        }
        if number % 11 == 0 {
            data.truncate(generator.usize(..data.len()));
        }
        all.push(data);
    }
    let question = |data: &Vec<u8>| json!({"op": "inflate", "data": BASE64_STANDARD.encode(data)});
    let mut taken = 0;
    for (data, answer) in all.iter().zip(ask(all.iter().map(question).collect())) {
        let expected: Option<(usize, u32)> = serde_json::from_value(answer).unwrap();
        assert_eq!(inflated(data), expected, "{}", BASE64_STANDARD.encode(data));
        taken += usize::from(expected.is_some());
    }
    assert!((all.len() / 5..all.len() * 4 / 5).contains(&taken), "{taken}");
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
