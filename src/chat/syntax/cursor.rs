//! A place in a text of which more may come.

/// Why nothing was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// What is there so far may become it.
    More,
    /// It is something else, whatever comes.
    Wrong,
}

pub(super) type Read<T> = Result<T, Stop>;

/// A place in a text. What was read from a part of the text stays read when more comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'t> {
    pub(super) text: &'t str,
    pub(super) place: usize,
    /// Whether no more comes.
    pub(super) is_whole: bool,
}

impl<'t> Cursor<'t> {
    pub(super) fn rest(&self) -> &'t str {
        &self.text[self.place..]
    }

    /// What is missing: more text, or it can never be.
    pub(super) fn short<T>(&self) -> Read<T> {
        Err(if self.is_whole { Stop::Wrong } else { Stop::More })
    }

    /// Goes over a text.
    pub(super) fn is(&mut self, text: &str) -> Read<()> {
        let rest = self.rest();
        if rest.starts_with(text) {
            self.place += text.len();
            return Ok(());
        }
        if text.starts_with(rest) { self.short() } else { Err(Stop::Wrong) }
    }

    /// Goes over a text if it is there.
    pub(super) fn may(&mut self, text: &str) -> Read<bool> {
        let mut ahead = *self;
        match ahead.is(text) {
            Ok(()) => {
                *self = ahead;
                Ok(true)
            }
            Err(Stop::Wrong) => Ok(false),
            Err(Stop::More) => Err(Stop::More),
        }
    }

    /// Goes over white space.
    pub(super) fn space(&mut self) {
        let rest = self.rest();
        self.place += rest.len() - rest.trim_start().len();
    }

    /// The next character.
    pub(super) fn next(&self) -> Read<char> {
        self.rest().chars().next().map_or_else(|| self.short(), Ok)
    }

    /// The text up to another, and over that.
    pub(super) fn until(&mut self, end: &str) -> Read<&'t str> {
        let Some(length) = self.rest().find(end) else { return self.short() };
        let found = &self.rest()[..length];
        self.place += length + end.len();
        Ok(found)
    }

    /// As many characters as fit, 1 to `most`; what follows has to be there, lest more of them come.
    pub(super) fn run(&mut self, most: usize, fits: impl Fn(char) -> bool) -> Read<&'t str> {
        let rest = self.rest();
        let length = rest.find(|next| !fits(next)).unwrap_or(rest.len());
        if length == rest.len() && length <= most && !self.is_whole {
            return Err(Stop::More);
        }
        if !(1..=most).contains(&length) {
            return Err(Stop::Wrong);
        }
        self.place += length;
        Ok(&rest[..length])
    }
}
