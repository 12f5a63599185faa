//! Line charts as SVG, for the benchmark, `profile` and the demo. It draws what it is given: no fitting, no axis that
//! does not start at zero.

use std::fmt::Write as _;

/// Points with a name.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (x, y), in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// Headline.
    pub title: String,
    /// What the x axis shows, with its unit.
    pub x: String,
    /// What the y axis shows, with its unit.
    pub y: String,
    /// Names of the places 0, 1, 2 … on the x axis, where it has no numbers.
    pub places: Vec<String>,
    /// Vertical lines with a word: where something happened.
    pub marks: Vec<(f64, String)>,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 480.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 110.0;
const COLOURS: [&str; 8] =
    ["#1b6ca8", "#d1495b", "#2a9d4a", "#edae49", "#7b4fa3", "#5c6670", "#00a6a6", "#8d5524"];

impl Chart {
    /// The chart as the text of an SVG file.
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|s| s.points.iter());
        let last = self.places.len().saturating_sub(1) as f64;
        let most_x = points().map(|p| p.0).fold(last, f64::max).max(f64::MIN_POSITIVE);
        let most_y = nice(points().map(|p| p.1).fold(0.0, f64::max));
        let at_x = |x: f64| LEFT + x / most_x * (WIDTH - LEFT - RIGHT);
        let at_y = |y: f64| HEIGHT - BOTTOM - y / most_y * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        text(&mut svg, (LEFT, 24.0), "font-size=\"16\"", &self.title);
        text(&mut svg, (LEFT, HEIGHT - 8.0), "", &self.x);
        text(&mut svg, (8.0, TOP - 6.0), "", &self.y);
        for step in 0..=5 {
            let y = most_y * f64::from(step) / 5.0;
            line(&mut svg, (LEFT, at_y(y)), (WIDTH - RIGHT, at_y(y)), "#dddddd");
            text(&mut svg, (LEFT - 8.0, at_y(y) + 4.0), "text-anchor=\"end\"", &short(y));
        }
        if self.places.is_empty() {
            for step in 0..=10 {
                let x = most_x * f64::from(step) / 10.0;
                text(&mut svg, (at_x(x), HEIGHT - BOTTOM + 18.0), "text-anchor=\"middle\"", &short(x));
            }
        }
        for (index, place) in self.places.iter().enumerate() {
            let (x, y) = (at_x(index as f64), HEIGHT - BOTTOM + 12.0);
            text(
                &mut svg,
                (x, y),
                &format!("text-anchor=\"end\" font-size=\"10\" transform=\"rotate(-45 {x} {y})\""),
                place,
            );
        }
        for (x, word) in &self.marks {
            line(&mut svg, (at_x(*x), TOP), (at_x(*x), HEIGHT - BOTTOM), "#999999");
            text(&mut svg, (at_x(*x) + 4.0, TOP + 12.0), "fill=\"#666666\" font-size=\"10\"", word);
        }
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let joined: Vec<String> =
                series.points.iter().map(|p| format!("{:.1},{:.1}", at_x(p.0), at_y(p.1))).collect();
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                joined.join(" ")
            );
            let y = TOP + 18.0 * index as f64 + 8.0;
            line(&mut svg, (WIDTH - RIGHT + 10.0, y), (WIDTH - RIGHT + 34.0, y), colour);
            text(&mut svg, (WIDTH - RIGHT + 40.0, y + 4.0), "", &series.name);
        }
        svg + "</svg>\n"
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), how: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {how}>{words}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>"
    );
}

/// The next number of 1, 2 or 5 times a power of ten.
fn nice(most: f64) -> f64 {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10f64.powf(most.log10().floor());
    let up = [1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0].into_iter().find(|f| f * power >= most);
    up.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.0}k", value / 1000.0),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_and_place_is_drawn_and_names_are_escaped() {
        let chart = Chart {
            title: "a < b & c".into(),
            places: vec!["one".into(), "two".into()],
            series: vec![
                Series { name: "first".into(), points: vec![(0.0, 1.0), (1.0, 2.0)] },
                Series { name: "second".into(), points: vec![(0.0, 0.0)] },
            ],
            ..Chart::default()
        };
        let svg = chart.to_svg();
        assert!(svg.contains("a &lt; b &amp; c"));
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(["one", "two", "first", "second"].iter().all(|w| svg.contains(w)));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
