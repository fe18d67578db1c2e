//! ALTO 4: the XML of libraries and archives (<https://www.loc.gov/standards/alto/>).

use std::fmt::Write;

use super::{BOXES_OF_WORDS, Page, TextLine, around, blocks, confidence, escape, words};

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.loc.gov/standards/alto/ns-v4# http://www.loc.gov/standards/alto/v4/alto-4-4.xsd" SCHEMAVERSION="4.4">
 <Description>
  <MeasurementUnit>pixel</MeasurementUnit>
"#;

/// An ALTO 4.4 document of all pages: `TextBlock`, `TextLine`, `String`, in pixels.
///
/// Boxes of words share out the line's box in proportion to the counts of characters (the description
/// of the processing says so). `WC` is the line's confidence. A line without text is an empty `String`.
/// The picture of a single page is the `fileName`; those of several are `fileIdentifier`s in the order of
/// the pages. `PHYSICAL_IMG_NR` is the page's own number, counted from 1; the `ID`s count the pages of the
/// document.
pub fn alto(pages: &[Page]) -> String {
    let mut out = String::from(HEAD);
    out.push_str("  <sourceImageInformation>\n");
    let element = if pages.len() == 1 { "fileName" } else { "fileIdentifier" };
    for page in pages {
        // Writing to a string can't fail; the results are let go.
        let _ = writeln!(out, "   <{element}>{}</{element}>", escape(&page.image));
    }
    let _ = write!(
        out,
        r#"  </sourceImageInformation>
  <Processing ID="processing_1">
   <processingCategory>contentGeneration</processingCategory>
   <processingStepDescription>{BOXES_OF_WORDS}</processingStepDescription>
   <processingSoftware>
    <softwareName>vedm</softwareName>
    <softwareVersion>{}</softwareVersion>
   </processingSoftware>
  </Processing>
 </Description>
 <Layout>
"#,
        env!("CARGO_PKG_VERSION"),
    );
    // Blocks and lines before the page: an ID is one in the whole document.
    let (mut block, mut line) = (0, 0);
    for (number, page) in (1..).zip(pages) {
        let Page { number: own, width, height, lines, .. } = page;
        let own = own + 1;
        let _ = write!(
            out,
            r#"  <Page ID="page_{number}" PHYSICAL_IMG_NR="{own}" WIDTH="{width}" HEIGHT="{height}">
   <PrintSpace HPOS="0" VPOS="0" WIDTH="{width}" HEIGHT="{height}">
"#
        );
        for range in blocks(lines) {
            block += 1;
            let place = place(around(&lines[range.clone()]));
            let _ = writeln!(out, "    <TextBlock ID=\"block_{block}\" {place}>");
            for index in range {
                write_line(&mut out, line + index + 1, &lines[index]);
            }
            out.push_str("    </TextBlock>\n");
        }
        line += lines.len();
        out.push_str("   </PrintSpace>\n  </Page>\n");
    }
    out.push_str(" </Layout>\n</alto>\n");
    out
}

fn write_line(out: &mut String, number: usize, line: &TextLine) {
    let _ = writeln!(out, "     <TextLine ID=\"line_{number}\" {}>", place(line.bbox));
    let sure = (confidence(line.confidence) * 1e4).round() / 1e4;
    let words = words(line);
    if words.is_empty() {
        let place = place(line.bbox);
        let _ = writeln!(
            out,
            "      <String ID=\"word_{number}_1\" {place} WC=\"{sure}\" CONTENT=\"\"/>"
        );
    }
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            let (from, to) = (words[index - 1].bbox[2], word.bbox[0]);
            let width = to.saturating_sub(from);
            let top = word.bbox[1];
            let _ = writeln!(out, "      <SP HPOS=\"{from}\" VPOS=\"{top}\" WIDTH=\"{width}\"/>");
        }
        let (place, text) = (place(word.bbox), escape(&word.text));
        let id = format!("word_{number}_{}", index + 1);
        let _ =
            writeln!(out, "      <String ID=\"{id}\" {place} WC=\"{sure}\" CONTENT=\"{text}\"/>");
    }
    out.push_str("     </TextLine>\n");
}

fn place([left, top, right, bottom]: [u32; 4]) -> String {
    let (width, height) = (right.saturating_sub(left), bottom.saturating_sub(top));
    format!("HPOS=\"{left}\" VPOS=\"{top}\" WIDTH=\"{width}\" HEIGHT=\"{height}\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn page(lines: Vec<TextLine>) -> Page {
        Page { image: "a&b.png".into(), number: 6, width: 300, height: 200, lines }
    }

    #[test]
    fn the_layout_is_blocks_lines_and_strings() {
        let lines = vec![
            TextLine { bbox: [10, 20, 110, 40], text: "\"a\" cdefgh".into(), confidence: 0.87654 },
            TextLine { bbox: [150, 20, 190, 40], text: " ".into(), confidence: f64::NAN },
        ];
        let document = alto(&[page(lines)]);
        let layout = document.split_once("<Layout>").unwrap().1;
        let expected = r#"
  <Page ID="page_1" PHYSICAL_IMG_NR="7" WIDTH="300" HEIGHT="200">
   <PrintSpace HPOS="0" VPOS="0" WIDTH="300" HEIGHT="200">
    <TextBlock ID="block_1" HPOS="10" VPOS="20" WIDTH="100" HEIGHT="20">
     <TextLine ID="line_1" HPOS="10" VPOS="20" WIDTH="100" HEIGHT="20">
      <String ID="word_1_1" HPOS="10" VPOS="20" WIDTH="30" HEIGHT="20" WC="0.8765" CONTENT="&quot;a&quot;"/>
      <SP HPOS="40" VPOS="20" WIDTH="10"/>
      <String ID="word_1_2" HPOS="50" VPOS="20" WIDTH="60" HEIGHT="20" WC="0.8765" CONTENT="cdefgh"/>
     </TextLine>
    </TextBlock>
    <TextBlock ID="block_2" HPOS="150" VPOS="20" WIDTH="40" HEIGHT="20">
     <TextLine ID="line_2" HPOS="150" VPOS="20" WIDTH="40" HEIGHT="20">
      <String ID="word_2_1" HPOS="150" VPOS="20" WIDTH="40" HEIGHT="20" WC="0" CONTENT=""/>
     </TextLine>
    </TextBlock>
   </PrintSpace>
  </Page>
 </Layout>
</alto>
"#;
        assert_eq!(layout, expected);
    }

    #[test]
    fn the_description_names_picture_unit_and_software() {
        let document = alto(&[page(vec![])]);
        for part in [
            "<MeasurementUnit>pixel</MeasurementUnit>",
            "<fileName>a&amp;b.png</fileName>",
            "<softwareName>vedm</softwareName>",
            "in proportion to counts of characters.</processingStepDescription>",
        ] {
            assert!(document.contains(part), "{part} is missing in {document}");
        }
        assert!(!document.contains("<TextBlock"), "{document}");
    }

    #[test]
    fn several_pages_have_ids_of_their_own() {
        let line = |top: u32| TextLine {
            bbox: [0, top, 40, top + 9],
            text: "x".into(),
            ..Default::default()
        };
        let first = page(vec![line(0), line(100)]);
        let second = Page { image: "b.png".into(), ..page(vec![line(0)]) };
        let document = alto(&[first, second]);
        let pictures = "<fileIdentifier>a&amp;b.png</fileIdentifier>\n   <fileIdentifier>b.png</fileIdentifier>";
        assert!(document.contains(pictures) && !document.contains("<fileName>"), "{document}");
        let ids: Vec<&str> = document
            .split(" ID=\"")
            .skip(2) // what is before, and the processing's
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        let expected = ["page_1", "block_1", "line_1", "word_1_1", "block_2", "line_2", "word_2_1"];
        assert_eq!(ids[..7], expected);
        assert_eq!(ids[7..], ["page_2", "block_3", "line_3", "word_3_1"]);
    }
}
