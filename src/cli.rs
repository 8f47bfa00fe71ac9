//! The command line: subcommands, and one flag for each setting of the table.
//!
//! Owns `Command` and `Invocation`. Called by `main`; calls `config` for the table and clap for the parsing. Flags
//! are Go's: `-port 3000`, `-port=3000`, `--port 3000` and `--port=3000` are the same, the last of several counts.
//! A setting's flag may stand before or after the subcommand. Texts about a wrong command line never repeat a value.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::{EXIT_CONFIG, SETTINGS, Setting};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve modules: what happens without a subcommand.
    Serve,
    /// Print the configuration and where each value came from.
    CheckConfig,
    /// Find out what is wrong with the way out.
    Doctor {
        /// Answer as JSON.
        is_json: bool,
    },
    /// Tell how the running service is doing.
    Status,
    /// Remove modules by the rules of age and space.
    Gc {
        /// Only tell what would be removed.
        dry_run: bool,
    },
    /// Keep modules whatever the rules say.
    Pin {
        /// `MODULE` or `MODULE@VERSION`, as typed, at least one.
        targets: Vec<String>,
    },
    /// List the pins.
    Pins,
    /// Take pins away.
    Unpin {
        /// `MODULE` or `MODULE@VERSION`, as typed, at least one.
        targets: Vec<String>,
    },
    /// List the alarms.
    Alarms,
    /// Hand out the evidence of an alarm.
    ExportAlarm {
        /// Its number.
        id: u64,
    },
    /// Clear alarms.
    ClearAlarms {
        /// Their numbers; none are all.
        ids: Vec<u64>,
    },
    /// Judge all that is stored.
    Verify {
        /// Fetch again what does not pass.
        repair: bool,
    },
    /// Compare go.sum files with the checksum database.
    VerifySums {
        /// The files, at least one.
        files: Vec<String>,
    },
    /// Read the log of the checksum database.
    Audit {
        /// All of it, not only what has come since the last time.
        from_start: bool,
    },
}

/// A command line that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// The settings given as flags, by flag name without dash; for [`crate::config::Config::load`].
    pub flags: BTreeMap<&'static str, String>,
}

/// Why nothing is to be done: the text to print, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help or version was asked for: whole lines, to print to stdout.
    Answer(String),
    /// The command line is wrong: one line without its end, to print to stderr.
    Mistake(String),
}

impl Stop {
    /// Returns the exit code that goes with it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Answer(_) => 0,
            Self::Mistake(_) => EXIT_CONFIG,
        }
    }
}

/// The settings that matter to subcommands other than serve and check-config; the others are accepted but not shown.
const COMMON_FLAGS: [&str; 3] = ["cache", "config", "log-level"];
/// The rules that may be given to one run of gc.
const RULE_FLAGS: [&str; 3] = ["max-cache-age", "max-cache-size", "min-free-space"];

/// Where and how checksum databases and upstreams are reached.
const OUTWARD_FLAGS: [&str; 13] = [
    "upstream",
    "gonosumdb",
    "gosumdb",
    "sumdbs",
    "sumdb-mode",
    "network-mode",
    "proxy",
    "no-proxy",
    "ca",
    "dns",
    "dns-route",
    "dns-bootstrap",
    "retry-attempts",
];

/// Understands a command line, whose first item is the program's name.
///
/// # Errors
/// [`Stop`], with the text to print.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, Stop> {
    let matches = command().try_get_matches_from(with_double_dashes(args)).map_err(|error| stop(&error))?;
    let mut flags = BTreeMap::new();
    collect_flags(&matches, &mut flags);
    let command = match matches.subcommand() {
        None => Command::Serve,
        Some((name, matches)) => {
            collect_flags(matches, &mut flags);
            if let Some((_, below)) = matches.subcommand() {
                collect_flags(below, &mut flags);
            }
            subcommand(name, matches)
        }
    };
    Ok(Invocation { command, flags })
}

fn subcommand(name: &str, matches: &ArgMatches) -> Command {
    let targets = || matches.get_many::<String>("module").into_iter().flatten().cloned().collect();
    match name {
        "check-config" => Command::CheckConfig,
        "doctor" => Command::Doctor { is_json: matches.get_flag("json") },
        "status" => Command::Status,
        "gc" => Command::Gc { dry_run: matches.get_flag("dry-run") },
        "pin" => Command::Pin { targets: targets() },
        "pins" => Command::Pins,
        "unpin" => Command::Unpin { targets: targets() },
        "alarms" => alarms(matches),
        "verify" => {
            let files: Vec<String> = matches.get_many("file").into_iter().flatten().cloned().collect();
            if files.is_empty() {
                Command::Verify { repair: matches.get_flag("repair") }
            } else {
                Command::VerifySums { files }
            }
        }
        "audit" => Command::Audit { from_start: matches.get_flag("from-start") },
        _ => Command::Serve,
    }
}

fn alarms(matches: &ArgMatches) -> Command {
    let Some((name, matches)) = matches.subcommand() else { return Command::Alarms };
    let mut ids = matches.get_many("id").into_iter().flatten().copied();
    match (name, ids.next()) {
        ("export", Some(id)) => Command::ExportAlarm { id },
        ("clear", first) => Command::ClearAlarms { ids: first.into_iter().chain(ids).collect() },
        _ => Command::Alarms,
    }
}

fn collect_flags(matches: &ArgMatches, flags: &mut BTreeMap<&'static str, String>) {
    for name in SETTINGS.iter().filter_map(|setting| setting.flag) {
        if let Some(value) = matches.get_one::<String>(name) {
            flags.insert(name, value.clone());
        }
    }
}

/// Turns `-port` into `--port`, as clap wants it; leaves values, `-h`, negative numbers and what follows `--` alone.
fn with_double_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut result = Vec::new();
    let mut args = args.into_iter();
    // The program's name is whatever the caller says, a dash included.
    result.extend(args.next());
    while let Some(arg) = args.next() {
        if arg == "--" {
            result.push(arg);
            break;
        }
        let long = long_name(&arg).map(str::to_owned);
        let takes_next = long
            .as_deref()
            .is_some_and(|name| SETTINGS.iter().any(|setting| setting.flag == Some(name) && !setting.is_switch()));
        if long.is_some() && !arg.as_encoded_bytes().starts_with(b"--") {
            let mut double = OsString::from("-");
            double.push(&arg);
            result.push(double);
        } else {
            result.push(arg);
        }
        if takes_next {
            result.extend(args.next());
        }
    }
    result.extend(args);
    result
}

/// Returns what follows the dashes of a long flag, up to the end: with `=value`, if that is there.
fn long_name(arg: &OsStr) -> Option<&str> {
    let text = arg.to_str()?;
    let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-').filter(|name| name.len() > 1))?;
    name.starts_with(|first: char| first.is_ascii_alphabetic()).then_some(name)
}

/// Builds the command line's description from the table of settings.
pub fn command() -> clap::Command {
    let plain = |name: &'static str, about: &'static str| clap::Command::new(name).about(about);
    let module = || Arg::new("module").value_name("MODULE[@VERSION]").required(true).num_args(1..);
    let dry_run = Arg::new("dry-run").long("dry-run").action(ArgAction::SetTrue);
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue);
    let root = clap::Command::new("larder")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .long_about("Serves Go modules to an office network, each fetched once. Without a command it serves.")
        .args_override_self(true)
        .after_help(
            "Every setting may be a flag, an environment variable or a key of the configuration file; a flag is \
             stronger than a variable, a variable than the file. One dash is as good as two. `larder check-config` \
             shows what counts.",
        );
    with_settings(root, |_| true)
        .subcommand(with_settings(plain("serve", "Serve modules (the default)"), |_| true))
        .subcommand(with_settings(plain("check-config", "Print the configuration and where it comes from"), |_| true))
        .subcommand(with_settings(
            plain("doctor", "Find out what is wrong with the way out, and what to change")
                .arg(json.help("Answer as JSON, for scripts")),
            |_| true,
        ))
        .subcommand(with_settings(plain("status", "Tell how the service is doing"), is_common))
        .subcommand(with_settings(
            plain("gc", "Remove modules by the rules of age and space")
                .arg(dry_run.help("Only tell what would be removed")),
            |flag| is_common(flag) || RULE_FLAGS.contains(&flag),
        ))
        .subcommand(with_settings(
            plain("pin", "Keep modules whatever the rules say").arg(module().help("What to keep")),
            is_common,
        ))
        .subcommand(with_settings(plain("pins", "List what is pinned"), is_common))
        .subcommand(with_settings(
            plain("unpin", "Take pins away").arg(module().help("What to keep no longer")),
            is_common,
        ))
        .subcommand(alarms_command())
        .subcommand(with_settings(verify_command(), goes_out))
        .subcommand(with_settings(
            clap::Command::new("audit")
                .about("Read the log of the checksum database and compare it with what was seen of it")
                .arg(switch("from-start").help("Read all of it, not only what has come since the last time")),
            goes_out,
        ))
}

fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn alarms_command() -> clap::Command {
    let id = || Arg::new("id").value_name("ID").value_parser(clap::value_parser!(u64)).help("The number of an alarm");
    let export = clap::Command::new("export")
        .about("Write the evidence of an alarm to stdout, as it is")
        .arg(id().required(true).num_args(1));
    let clear = clap::Command::new("clear")
        .about("Clear alarms, all of them unless numbers are given; what they kept from being judged is judged again")
        .arg(id().num_args(0..));
    with_settings(clap::Command::new("alarms").about("List the alarms, hand out their evidence, clear them"), is_common)
        .subcommand(with_settings(export, is_common))
        .subcommand(with_settings(clear, is_common))
}

fn verify_command() -> clap::Command {
    let files = Arg::new("file").value_name("FILE").num_args(0..);
    clap::Command::new("verify")
        .about("Judge all that is stored, or compare go.sum files with the checksum database")
        .arg(switch("repair").help("Fetch again what does not pass").conflicts_with("file"))
        .arg(files.help("A go.sum file; without one, what is stored is judged"))
}

/// What matters to a command that may use the network by itself.
fn goes_out(flag: &str) -> bool {
    is_common(flag) || OUTWARD_FLAGS.contains(&flag)
}

fn is_common(flag: &str) -> bool {
    COMMON_FLAGS.contains(&flag)
}

fn with_settings(command: clap::Command, is_shown: fn(&str) -> bool) -> clap::Command {
    let args = SETTINGS.iter().filter_map(|setting| {
        let flag = setting.flag?;
        let arg = Arg::new(flag).long(flag).help(help(setting)).help_heading("Settings").hide(!is_shown(flag));
        Some(if setting.is_switch() {
            // Go's form of a switch: alone, or with `=true` or `=false`.
            arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
        } else {
            arg.num_args(1).value_name(setting.value_name).allow_hyphen_values(true)
        })
    });
    command.args(args).args_override_self(true)
}

fn help(setting: &Setting) -> String {
    let mut places = Vec::new();
    if !setting.variables.is_empty() {
        let names: Vec<&str> = setting.variables.iter().map(|variable| variable.name).collect();
        places.push(format!("variable {}", names.join(", ")));
    }
    places.extend(setting.key.map(|key| format!("key {key}")));
    if !setting.default.is_empty() {
        places.push(format!("default {}", setting.default));
    }
    format!("{} [{}]", setting.help, places.join("; "))
}

/// Turns clap's finding into a text that names flags and commands, but repeats nothing that may be a secret.
fn stop(error: &clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop::Answer(error.to_string());
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    // A flag is named without the value that may hang on it; the form people type has one dash.
    let named = context(ContextKind::InvalidArg).filter(|arg| arg.starts_with('-'));
    let flag = named.map(|arg| {
        let name = arg.trim_start_matches('-').split(['=', ' ']).next().unwrap_or("");
        format!("-{name}")
    });
    let meant = context(ContextKind::SuggestedArg)
        .map(|arg| format!("-{}", arg.trim_start_matches('-')))
        .or_else(|| context(ContextKind::SuggestedSubcommand).map(str::to_owned));
    let hint = meant
        .map_or_else(|| "; see larder -help".to_owned(), |meant| format!("; did you mean {meant}? See larder -help"));
    Stop::Mistake(match (error.kind(), flag) {
        (ErrorKind::UnknownArgument, Some(flag)) => format!("{flag}: unknown flag{hint}"),
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, _) => {
            let commands: Vec<String> =
                command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
            format!("not a command{hint}; commands are {}", commands.join(", "))
        }
        (ErrorKind::InvalidUtf8, _) => "the command line is not valid UTF-8".to_owned(),
        (ErrorKind::InvalidValue | ErrorKind::NoEquals | ErrorKind::WrongNumberOfValues, Some(flag)) => {
            format!("{flag}: a value is missing{hint}")
        }
        (ErrorKind::TooManyValues, Some(flag)) => format!("{flag}: takes no value{hint}"),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, None) => {
            format!("an alarm is named by its number, as larder alarms shows it{hint}")
        }
        (ErrorKind::MissingRequiredArgument, _) => {
            // It comes as `<ID>` or `<FILE>...`.
            let missing = context(ContextKind::InvalidArg).unwrap_or("").trim_end_matches('.');
            format!("an argument is missing: {}{hint}", missing.trim_matches(['<', '>']))
        }
        (ErrorKind::ArgumentConflict, Some(flag)) => format!("{flag}: does not go with a file{hint}"),
        (_, Some(flag)) => format!("{flag}: cannot be understood{hint}"),
        (_, None) => format!("the command line cannot be understood{hint}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Invocation, Stop> {
        parse(std::iter::once("larder").chain(words.iter().copied()).map(OsString::from))
    }

    fn mistake(words: &[&str]) -> String {
        match parse_words(words) {
            Err(Stop::Mistake(text)) => text,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    /// clap finds nothing wrong with the description built from the table.
    #[test]
    fn description_is_sound() {
        command().debug_assert();
    }

    /// One dash or two, a space or an equals sign, before or after the subcommand: all the same, the last counts.
    #[test]
    fn go_style_flags() {
        let forms: [&[&str]; 7] = [
            &["-port", "3000"],
            &["-port=3000"],
            &["--port", "3000"],
            &["--port=3000"],
            &["serve", "-port", "3000"],
            &["-port", "3000", "serve"],
            &["-port", "1", "-port=2", "serve", "--port", "3000"],
        ];
        for form in forms {
            let invocation = parse_words(form).unwrap();
            assert_eq!(invocation.command, Command::Serve, "{form:?}");
            assert_eq!(invocation.flags, BTreeMap::from([("port", "3000".to_owned())]), "{form:?}");
        }
    }

    /// Values keep their dashes, negative numbers stay what they are, switches take no following word.
    #[test]
    fn values_are_not_touched() {
        let flag = |words: &[&str], name| parse_words(words).unwrap().flags.get(name).cloned();
        assert_eq!(flag(&["-cache", "-odd"], "cache").as_deref(), Some("-odd"));
        assert_eq!(flag(&["-retry-attempts", "-1"], "retry-attempts").as_deref(), Some("-1"));
        assert_eq!(flag(&["-gonosumdb", ""], "gonosumdb").as_deref(), Some(""));
        assert_eq!(flag(&["-cache=-a=b"], "cache").as_deref(), Some("-a=b"));
        assert_eq!(flag(&["-log-requests"], "log-requests").as_deref(), Some("true"));
        assert_eq!(flag(&["-log-requests=false"], "log-requests").as_deref(), Some("false"));
        assert_eq!(flag(&["-log-requests", "serve"], "log-requests").as_deref(), Some("true"));
        assert_eq!(flag(&["serve"], "port"), None);
    }

    /// Every subcommand is known with its arguments.
    #[test]
    fn subcommands() {
        let targets = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let cases: [(&[&str], Command); 24] = [
            (&[], Command::Serve),
            (&["serve"], Command::Serve),
            (&["check-config"], Command::CheckConfig),
            (&["doctor"], Command::Doctor { is_json: false }),
            (&["doctor", "-json", "-proxy", "socks5://a"], Command::Doctor { is_json: true }),
            (&["status"], Command::Status),
            (&["gc"], Command::Gc { dry_run: false }),
            (&["gc", "--dry-run"], Command::Gc { dry_run: true }),
            (&["gc", "-dry-run", "-cache", "x"], Command::Gc { dry_run: true }),
            (
                &["pin", "a.example/m@v1.0.0", "b.example"],
                Command::Pin { targets: targets(&["a.example/m@v1.0.0", "b.example"]) },
            ),
            (&["pins"], Command::Pins),
            (&["unpin", "a.example/m"], Command::Unpin { targets: targets(&["a.example/m"]) }),
            (&["alarms"], Command::Alarms),
            (&["alarms", "-cache", "x"], Command::Alarms),
            (&["alarms", "export", "3"], Command::ExportAlarm { id: 3 }),
            (&["alarms", "clear"], Command::ClearAlarms { ids: vec![] }),
            (&["alarms", "clear", "1", "2", "-cache", "x"], Command::ClearAlarms { ids: vec![1, 2] }),
            (&["verify"], Command::Verify { repair: false }),
            (&["verify", "-repair"], Command::Verify { repair: true }),
            (&["verify", "--repair", "-upstream", "x"], Command::Verify { repair: true }),
            (&["verify", "go.sum", "b/go.sum"], Command::VerifySums { files: targets(&["go.sum", "b/go.sum"]) }),
            (&["audit"], Command::Audit { from_start: false }),
            (&["audit", "-from-start"], Command::Audit { from_start: true }),
            (&["-proxy", "x", "audit", "--from-start"], Command::Audit { from_start: true }),
        ];
        for (words, command) in cases {
            assert_eq!(parse_words(words).unwrap().command, command, "{words:?}");
        }
        for words in
            [["-cache", "x", "alarms", "clear"], ["alarms", "-cache", "x", "clear"], ["alarms", "clear", "-cache", "x"]]
        {
            assert_eq!(parse_words(&words).unwrap().flags, BTreeMap::from([("cache", "x".to_owned())]), "{words:?}");
        }
    }

    /// Help and version are answers in every spelling, and help names every flag, variable and key.
    #[test]
    fn help_and_version() {
        for words in [["-h"], ["-help"], ["--help"]] {
            let Err(stop @ Stop::Answer(_)) = parse_words(&words) else { panic!("{words:?}") };
            assert_eq!(stop.exit_code(), 0);
            let Stop::Answer(text) = stop else { panic!() };
            for setting in SETTINGS {
                let Some(flag) = setting.flag else { continue };
                assert!(text.contains(&format!("--{flag}")), "{flag}");
                assert!(setting.variables.iter().all(|variable| text.contains(variable.name)), "{flag}");
            }
        }
        for words in [["-V"], ["-version"], ["--version"]] {
            let answer = Err(Stop::Answer(format!("larder {}\n", env!("CARGO_PKG_VERSION"))));
            assert_eq!(parse_words(&words), answer);
        }
        let Err(Stop::Answer(text)) = parse_words(&["gc", "-help"]) else { panic!() };
        assert!(text.contains("--dry-run") && text.contains("--cache") && !text.contains("--retry-attempts"), "{text}");
        let Err(Stop::Answer(outward)) = parse_words(&["verify", "-help"]) else { panic!() };
        assert!(
            outward.contains("--repair") && outward.contains("--proxy") && outward.contains("--cache"),
            "{outward}"
        );
        assert!(RULE_FLAGS.iter().all(|flag| text.contains(&format!("--{flag}"))), "{text}");
    }

    /// A wrong command line exits 64 and names the flag or command meant, never a value.
    #[test]
    fn mistakes() {
        let cases: [(&[&str], &str); 13] = [
            (&["-upstraem=https://u:s3cret@a.example"], "-upstraem: unknown flag; did you mean -upstream?"),
            (&["-colour", "s3cret"], "-colour: unknown flag; see larder -help"),
            (&["-port"], "-port: a value is missing"),
            (&["statsu"], "not a command; did you mean status?"),
            (&["https://u:s3cret@a.example"], "not a command"),
            (&["status", "s3cret"], "not a command"),
            (&["pin"], "an argument is missing: MODULE[@VERSION];"),
            (&["alarms", "export"], "an argument is missing: ID;"),
            (&["alarms", "clear", "s3cret"], "an alarm is named by its number"),
            (&["alarms", "export", "-1"], "-1: unknown flag"),
            (&["verify", "-repair", "s3cret"], "-repair: does not go with a file"),
            (&["gc", "-dry-run=s3cret"], "-dry-run: "),
            (&["-x"], "-x: unknown flag"),
        ];
        for (words, expected) in cases {
            let text = mistake(words);
            assert!(text.contains(expected) && !text.contains("s3cret"), "{words:?}: {text}");
            assert_eq!(Stop::Mistake(text).exit_code(), 64);
        }
    }
}
