//! Which pages of a file: `1,3-5,7-`.

use std::fmt;
use std::str::FromStr;

/// Pages of a file, counted from 1; frames of an animation count as pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pages {
    /// First and last page; none goes on to the end.
    ranges: Vec<(usize, Option<usize>)>,
}

impl Pages {
    pub fn one(page: usize) -> Self {
        Pages { ranges: vec![(page, Some(page))] }
    }

    pub fn contains(&self, page: usize) -> bool {
        let inside = |(first, last): &(usize, Option<usize>)| {
            *first <= page && last.is_none_or(|last| page <= last)
        };
        self.ranges.iter().any(inside)
    }

    /// Whether pages after this one are asked for.
    pub fn go_beyond(&self, page: usize) -> bool {
        self.ranges.iter().any(|(_, last)| last.is_none_or(|last| page < last))
    }
}

impl FromStr for Pages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.trim().parse().ok().filter(|page| *page > 0);
        let range = |part: &str| match part.split_once('-') {
            None => number(part).map(|page| (page, Some(page))),
            Some((first, last)) if last.trim().is_empty() => Some((number(first)?, None)),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some((first, Some(last)))
            }
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        match ranges {
            Some(ranges) => Ok(Pages { ranges }),
            None => Err("expected pages counted from 1, such as 1,3-5,7-".to_string()),
        }
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match last {
                Some(last) if last == first => write!(f, "{comma}{first}")?,
                Some(last) => write!(f, "{comma}{first}-{last}")?,
                None => write!(f, "{comma}{first}-")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_they_are_written() {
        let table = [("1", vec![1]), ("1,3-5", vec![1, 3, 4, 5]), ("7-, 2", vec![2, 7, 8, 9])];
        for (text, expected) in table {
            let pages: Pages = text.parse().unwrap();
            let found: Vec<usize> = (1..10).filter(|page| pages.contains(*page)).collect();
            assert_eq!(found, expected, "{text}");
            assert_eq!(pages.to_string(), text.replace(' ', ""));
        }
        for text in ["", "0", "a", "5-3", "1,,2", "-3", "1-2-3", "1;2"] {
            assert!(text.parse::<Pages>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_last_page_is_known() {
        let pages: Pages = "1,3-5".parse().unwrap();
        assert!(pages.go_beyond(4) && !pages.go_beyond(5));
        assert!("2-".parse::<Pages>().unwrap().go_beyond(1000));
    }
}
