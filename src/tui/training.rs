//! A run of training as it goes on: the curve of its losses, how fast it is, how long it will take.
//!
//! It is drawn below what the terminal shows, in as many lines as it needs, and lines that are said go above it. The
//! keyboard stays as it is, so that Ctrl-C does what it does everywhere.

use std::fmt::Write as _;
use std::io::{self, Stderr};
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType, Paragraph};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use crate::term::{neutral, units};

/// Lines of the view.
const LINES: u16 = 14;

/// The least time between two pictures.
const PAUSE: Duration = Duration::from_millis(120);

/// Steps whose pace says how long the rest will take.
const PACE_STEPS: usize = 20;

/// What is drawn.
#[derive(Debug, Default)]
pub struct Figures {
    /// Steps of the run.
    pub steps: u64,
    /// The step behind which it stands.
    pub step: u64,
    /// Losses by steps.
    pub losses: Vec<(f64, f64)>,
    /// Losses of the evaluation examples by steps.
    pub evaluations: Vec<(f64, f64)>,
    /// Tokens and durations of the last steps.
    pub pace: Vec<(usize, Duration)>,
    /// Memory of this process.
    pub memory_bytes: Option<u64>,
    /// Whether there are colours.
    pub colours: bool,
}

impl Figures {
    /// A step that was taken.
    pub fn step(&mut self, step: u64, loss: f64, tokens: usize, took: Duration) {
        self.step = step;
        self.losses.push((step as f64, loss));
        self.pace.push((tokens, took));
        if self.pace.len() > PACE_STEPS {
            self.pace.remove(0);
        }
    }

    /// Tokens a second in the last steps.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let tokens: usize = self.pace.iter().map(|(tokens, _)| tokens).sum();
        let took: Duration = self.pace.iter().map(|(_, took)| took).sum();
        (!took.is_zero()).then(|| tokens as f64 / took.as_secs_f64())
    }

    /// How long the rest will take at that pace.
    pub fn left(&self) -> Option<Duration> {
        let took: Duration = self.pace.iter().map(|(_, took)| took).sum();
        let rest = u32::try_from(self.steps.saturating_sub(self.step)).ok()?;
        (took / u32::try_from(self.pace.len()).ok().filter(|count| *count > 0)?).checked_mul(rest)
    }

    /// Draws them.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let [head, curve] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(4)]).areas(frame.area());
        frame.render_widget(Paragraph::new(self.words()), head);
        self.curve(frame, curve);
    }

    fn paint(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn words(&self) -> Vec<Line<'static>> {
        let mut first = format!("step {} of {}", self.step, self.steps);
        if let Some(pace) = self.tokens_per_second() {
            let _ = write!(first, "   {pace:.0} tokens/s");
        }
        if let Some(bytes) = self.memory_bytes {
            let _ = write!(first, "   {}", units::bytes(bytes));
        }
        if let Some(left) = self.left() {
            let _ = write!(first, "   {} left", units::duration(left));
        }
        let mut second = Vec::new();
        if let Some((_, loss)) = self.losses.last() {
            second.push(Span::styled(format!("loss {loss:.4}"), self.paint(Color::Cyan)));
        }
        if let Some((step, loss)) = self.evaluations.last() {
            let text = format!("   eval {loss:.4} behind step {step}");
            second.push(Span::styled(text, self.paint(Color::Magenta)));
        }
        vec![Line::from(first), Line::from(second)]
    }

    fn curve(&self, frame: &mut Frame<'_>, area: Rect) {
        let all = || self.losses.iter().chain(&self.evaluations).map(|(_, loss)| *loss);
        let finite = || all().filter(|loss| loss.is_finite());
        let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
        if low > high {
            return;
        }
        let room = ((high - low) * 0.05).max(1e-3);
        let bounds = [low - room, high + room];
        let set = |data, marker, colour| {
            let set = Dataset::default().data(data).marker(marker).style(self.paint(colour));
            set.graph_type(GraphType::Line)
        };
        let sets = vec![
            set(&self.losses, Marker::Braille, Color::Cyan),
            set(&self.evaluations, Marker::Dot, Color::Magenta),
        ];
        let steps = self.steps.max(1);
        let x = Axis::default().bounds([0.0, steps as f64]).labels([
            "0".to_owned(),
            (steps / 2).to_string(),
            steps.to_string(),
        ]);
        let labels = [bounds[0], f64::midpoint(bounds[0], bounds[1]), bounds[1]];
        let y = Axis::default().bounds(bounds).labels(labels.map(|loss| format!("{loss:.2}")));
        frame.render_widget(Chart::new(sets).x_axis(x).y_axis(y), area);
    }
}

/// The view on a terminal.
#[derive(Debug)]
pub struct View {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    drawn: Option<Instant>,
    /// What is drawn.
    pub figures: Figures,
}

impl View {
    /// A view below what the terminal shows.
    ///
    /// # Errors
    /// When the terminal does not say where its cursor is; then there can be no view.
    pub fn open(figures: Figures) -> io::Result<Self> {
        let options = TerminalOptions { viewport: Viewport::Inline(LINES) };
        let terminal = Terminal::with_options(CrosstermBackend::new(io::stderr()), options)?;
        Ok(Self { terminal, drawn: None, figures })
    }

    /// Draws what has changed, unless it was drawn just now. A terminal that has gone is no reason to fail.
    pub fn draw(&mut self) {
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE) {
            self.drawn = Some(Instant::now());
            let Self { terminal, figures, .. } = self;
            let _ = terminal.draw(|frame| figures.draw(frame));
        }
    }

    /// Writes a line above the view.
    pub fn above(&mut self, text: &str) {
        let text = neutral(text);
        let width = self.terminal.size().map_or(80, |size| size.width.max(1));
        let rows = |line: &str| line.chars().count().div_ceil(width.into()).max(1);
        let height = u16::try_from(text.lines().map(rows).sum::<usize>()).unwrap_or(1);
        let paragraph = Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: false });
        let _ = self.terminal.insert_before(height, |buffer| {
            ratatui::widgets::Widget::render(paragraph, buffer.area, buffer);
        });
    }

    /// Removes the view; what is said next stands in its place.
    pub fn close(&mut self) {
        let _ = self.terminal.clear();
        let _ = self.terminal.show_cursor();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::backend::TestBackend;

    fn screen(figures: &Figures, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, LINES)).unwrap();
        terminal.draw(|frame| figures.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<&str> = buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect();
        cells.chunks(width.into()).map(|row| row.concat().trim_end().to_owned()).collect()
    }

    #[test]
    fn the_screen_says_where_a_run_stands() {
        let mut figures = Figures { steps: 40, memory_bytes: Some(3 << 29), ..Figures::default() };
        for step in 1..=30 {
            figures.step(step, 5.0 - step as f64 / 10.0, 512, Duration::from_millis(500));
        }
        figures.evaluations = vec![(0.0, 5.0), (30.0, 2.5)];
        let rows = screen(&figures, 72);
        assert_eq!(rows[0], "step 30 of 40   1024 tokens/s   1.50 GiB   5.0 s left");
        assert_eq!(rows[1], "loss 2.0000   eval 2.5000 behind step 30");
        assert!(rows[2].starts_with("5.15"), "{rows:#?}");
        assert!(rows[11].starts_with("1.85"), "{rows:#?}");
        assert!(rows[13].contains("20") && rows[13].ends_with("40"), "{rows:#?}");
        // The curve falls from the left to where the run stands, and beyond that there is nothing.
        let column =
            |row: usize| rows[row].chars().position(|c| ('\u{2801}'..='\u{28ff}').contains(&c));
        let marks: Vec<usize> = (2..12).filter_map(column).collect();
        assert!(marks.len() > 8 && marks.is_sorted(), "{rows:#?}");
        assert!(rows[2..12].iter().all(|row| row.chars().count() < 60), "{rows:#?}");
    }

    #[test]
    fn any_size_and_no_numbers_can_be_drawn() {
        let mut figures = Figures { steps: 3, ..Figures::default() };
        assert_eq!(screen(&figures, 40)[0], "step 0 of 3");
        figures.step(1, f64::NAN, 1, Duration::ZERO);
        for width in [1, 7, 200] {
            screen(&figures, width);
        }
    }
}
