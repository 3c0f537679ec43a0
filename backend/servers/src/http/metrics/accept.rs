//! The choice between the two formats of metrics, by the Accept header of RFC 9110.

/// Whether a client prefers OpenMetrics 1.0 to the older text format: it names it, and gives it at least the same
/// quality.
pub fn prefers_open_metrics<'a>(accepted: impl Iterator<Item = &'a str>) -> bool {
    let ranges: Vec<Range<'_>> =
        accepted.flat_map(|header| header.split(',')).filter_map(Range::of).collect();
    let named = ranges.iter().filter(|range| range.is_open_metrics()).map(|range| range.quality);
    let open_metrics = named.fold(0.0, f32::max);
    // The most specific range counts.
    let text = ["text/plain", "text/*", "*/*"].iter().find_map(|media_type| {
        let of_type = ranges.iter().filter(|range| range.is_text(media_type)).map(|range| range.quality);
        of_type.reduce(f32::max)
    });
    open_metrics > 0.0 && open_metrics >= text.unwrap_or(0.0)
}

/// A media range with its parameters.
struct Range<'a> {
    media_type: &'a str,
    version: Option<&'a str>,
    quality: f32,
}

impl<'a> Range<'a> {
    fn of(text: &'a str) -> Option<Range<'a>> {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Range { media_type: parts.next()?, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "q" | "Q" => range.quality = value.parse().ok()?,
                name if name.eq_ignore_ascii_case("version") => range.version = Some(value),
                _ => {}
            }
        }
        Some(range)
    }

    fn is_open_metrics(&self) -> bool {
        self.media_type.eq_ignore_ascii_case("application/openmetrics-text")
            && self.version.is_none_or(|version| version == "1.0.0")
    }

    fn is_text(&self, media_type: &str) -> bool {
        self.media_type.eq_ignore_ascii_case(media_type)
            && self.version.is_none_or(|version| version == "0.0.4")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quality_decides() {
        let prefers = |accept: &str| prefers_open_metrics([accept].into_iter());
        // Prometheus 2.42, word for word.
        assert!(prefers(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ));
        assert!(prefers("application/openmetrics-text"));
        assert!(prefers("application/openmetrics-text; version=1.0.0; charset=utf-8"));
        assert!(prefers("text/plain, application/openmetrics-text"));
        assert!(!prefers("application/openmetrics-text;q=0"));
        assert!(!prefers("application/openmetrics-text;q=0.4, text/plain;q=0.5"));
        assert!(
            !prefers("application/openmetrics-text;version=0.0.1, text/plain;q=0.5"),
            "a version not spoken here"
        );
        assert!(prefers("application/openmetrics-text;q=0.4, text/plain;q=0.3, */*"));
        assert!(!prefers("application/openmetrics-text;q=0.4, */*;q=0.5"));
        for other in ["", "*/*", "text/plain", "application/json", "application/openmetrics-text;q=x"] {
            assert!(!prefers(other), "{other}");
        }
        assert!(prefers_open_metrics(["text/plain;q=0.5", "application/openmetrics-text"].into_iter()));
    }
}
