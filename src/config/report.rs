//! Prints the configuration for `larder check-config`: each setting, its value and where that came from.
//!
//! Called by `app`; calls the settings table, whose `show` masks secrets.

use super::Loaded;

/// Columns that most names and values fit in.
const NAME_WIDTH: usize = 28;
const VALUE_WIDTH: usize = 40;

impl Loaded {
    /// Returns the text of `check-config`, ending with the line `ok`. `way_out` are the start-up lines on how upstreams are reached.
    pub fn report(&self, way_out: &[String]) -> String {
        let mut lines = Vec::new();
        for (setting, origin) in &self.origins {
            let value = (setting.show)(&self.config);
            let value = if value.is_empty() { "-" } else { &value };
            lines.push(format!("{:NAME_WIDTH$} {value:VALUE_WIDTH$} {origin}", setting.name()));
        }
        lines.extend(way_out.iter().cloned());
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        lines.push("ok\n".to_owned());
        lines.join("\n")
    }
}
