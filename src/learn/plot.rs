//! The losses of a run as a picture (SVG).

use std::fmt::Write as _;

/// Size of the picture and of its margins, in pixels.
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 450.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 44.0;

/// How much of the smooth line stays with each step.
const SMOOTHNESS: f64 = 0.9;

/// Losses by steps.
#[derive(Debug, Clone, Copy)]
pub struct Curves<'a> {
    /// What the picture is called.
    pub title: &'a str,
    /// Of the steps.
    pub learned: &'a [(u64, f64)],
    /// Of the evaluation examples.
    pub evaluated: &'a [(u64, f64)],
}

/// From numbers to places on the picture.
struct Scale {
    steps: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, step: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * step / self.steps
    }

    fn y(&self, loss: f64) -> f64 {
        TOP + (HEIGHT - TOP - BOTTOM) * (self.high - loss) / (self.high - self.low)
    }

    fn line(&self, points: impl Iterator<Item = (u64, f64)>) -> String {
        let places =
            points.map(|(step, loss)| format!("{:.1},{:.1}", self.x(step as f64), self.y(loss)));
        places.collect::<Vec<_>>().join(" ")
    }
}

impl Curves<'_> {
    /// The picture.
    pub fn svg(&self) -> String {
        let all = || self.learned.iter().chain(self.evaluated).filter(|(_, loss)| loss.is_finite());
        let low = all().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
        let high = all().map(|(_, loss)| *loss).fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = if low < high { (low, high) } else { (0.0, high.max(1.0)) };
        let ticks = ticks(low, high, 6);
        let scale = Scale {
            steps: all().map(|(step, _)| *step).max().unwrap_or(1).max(1) as f64,
            low: low.min(ticks[0]),
            high: high.max(ticks[ticks.len() - 1]),
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n",
            escape(self.title)
        );
        let (end, floor) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &ticks {
            let (y, text) = (scale.y(*tick), number(*tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for tick in self::ticks(0.0, scale.steps, 8) {
            let (x, text) = (scale.x(tick), number(tick));
            let _ = writeln!(
                svg,
                "<path d=\"M{x:.1} {floor}v5\" stroke=\"#888\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{text}</text>",
                floor + 20.0
            );
        }
        let _ = writeln!(svg, "<path d=\"M{LEFT} {floor}H{end}\" stroke=\"#888\"/>");
        let finite = || self.learned.iter().copied().filter(|(_, loss)| loss.is_finite());
        let line = |points: String, style: &str| {
            format!("<polyline points=\"{points}\" fill=\"none\" {style}/>\n")
        };
        svg += &line(scale.line(finite()), "stroke=\"#9ec5e8\"");
        svg += &line(scale.line(smooth(finite())), "stroke=\"#1f6fb4\" stroke-width=\"2\"");
        let evaluated = || self.evaluated.iter().copied().filter(|(_, loss)| loss.is_finite());
        svg += &line(scale.line(evaluated()), "stroke=\"#d1495b\" stroke-width=\"2\"");
        for (step, loss) in evaluated() {
            let (x, y) = (scale.x(step as f64), scale.y(loss));
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#d1495b\"/>");
        }
        let legend = if self.evaluated.is_empty() {
            ""
        } else {
            "<tspan fill=\"#d1495b\"> evaluation</tspan>"
        };
        let _ = writeln!(
            svg,
            "<text x=\"{end}\" y=\"24\" text-anchor=\"end\"><tspan fill=\"#1f6fb4\">loss</tspan>{legend}</text>\n</svg>"
        );
        svg
    }
}

/// The mean of what came before, the nearer the heavier.
fn smooth(points: impl Iterator<Item = (u64, f64)>) -> impl Iterator<Item = (u64, f64)> {
    let (mut sum, mut weight) = (0.0, 0.0);
    points.map(move |(step, loss)| {
        sum = SMOOTHNESS * sum + loss;
        weight = SMOOTHNESS * weight + 1.0;
        (step, sum / weight)
    })
}

/// Round numbers from the first at or below `low` to the last at or below `high`, about `count` of them.
fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let raw = (high - low) / count as f64;
    let power = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= raw);
    let step = factor.unwrap_or(10.0) * power;
    let (first, last) = ((low / step).floor() as i64, (high / step).floor() as i64);
    (first..=last).map(|number| number as f64 * step).collect()
}

/// A tick's number, without the traces of binary fractions.
fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_numbers() {
        assert_eq!(ticks(0.0, 100.0, 8), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let texts: Vec<String> = ticks(2.13, 4.4, 6).into_iter().map(number).collect();
        assert_eq!(texts, ["2", "2.5", "3", "3.5", "4"]);
    }

    #[test]
    fn a_picture_has_every_point_within_its_frame() {
        let learned: Vec<(u64, f64)> =
            (1..=50).map(|step| (step, 5.0 - step as f64 / 20.0)).collect();
        let curves = Curves { title: "a<b", learned: &learned, evaluated: &[(0, 5.0), (50, 2.4)] };
        let svg = curves.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("evaluation") && svg.ends_with("</svg>\n"));
        let points: Vec<&str> =
            svg.split("points=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
        assert_eq!(
            points.iter().map(|line| line.split(' ').count()).collect::<Vec<_>>(),
            [50, 50, 2]
        );
        for point in points.iter().flat_map(|line| line.split(' ')) {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
        }
        // Nothing, one point, and what is no number are pictures too.
        for learned in [&[][..], &[(1, 2.0)], &[(1, f64::NAN)]] {
            let svg = Curves { title: "", learned, evaluated: &[] }.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
