//! Colours, on a terminal only and not where `NO_COLOR` is set (no-color.org).

use std::io::IsTerminal;

/// A colour or none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Colour {
    Bold,
    Red,
    Green,
    Yellow,
    Plain,
}

/// Whether to paint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// For stdout as it is now.
    pub(super) fn for_stdout() -> Paint {
        Paint(std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()))
    }

    #[cfg(test)]
    pub(super) fn none() -> Paint {
        Paint(false)
    }

    /// The text, painted.
    pub(super) fn text(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => "1",
            Colour::Red => "31",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Plain => return text.to_owned(),
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
