//! Starts Larder: arguments, configuration, logger, runtime, application, exit code.

use std::process::ExitCode;

use larder::cli::{self, Command};
use larder::config::{Config, EXIT_CONFIG, process_environment, read_config_file};
use larder::{app, config};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the program's own words, before there is a logger")]
fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(stop) => {
            match &stop {
                cli::Stop::Answer(text) => print!("{text}"),
                cli::Stop::Mistake(text) => eprintln!("larder: {text}"),
            }
            return ExitCode::from(stop.exit_code());
        }
    };
    let loaded = Config::load(&invocation.flags, &process_environment(), &read_config_file);
    if let Command::Doctor { is_json } = invocation.command {
        return app::doctor::main(loaded, is_json);
    }
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&errors),
    };
    let done = if invocation.command == Command::CheckConfig {
        app::check_config(&loaded).map(|text| {
            print!("{text}");
            ExitCode::SUCCESS
        })
    } else {
        app::main(&loaded, &invocation)
    };
    done.unwrap_or_else(|errors| refuse(&errors))
}

#[expect(clippy::print_stderr, reason = "the program's own words, before there is a logger")]
fn refuse(errors: &config::ConfigErrors) -> ExitCode {
    eprintln!("larder: {errors}");
    ExitCode::from(EXIT_CONFIG)
}
