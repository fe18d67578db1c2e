//! hOCR 1.2: XHTML whose classes and titles carry the layout.

use std::fmt::Write;

use super::{BOXES_OF_WORDS, Page, TextLine, around, blocks, confidence, escape, words};

const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title></title>
  <meta http-equiv="Content-Type" content="text/html; charset=utf-8" />
"#;

/// An hOCR document of all pages: `ocr_page`, `ocr_carea` (blocks), `ocr_line`, `ocrx_word`.
///
/// Boxes of words share out the line's box in proportion to the counts of characters (a comment in the
/// head says so). `x_wconf` is the line's confidence in whole percent, `ppageno` the page's own number; the
/// `id`s count the pages of the document.
pub fn hocr(pages: &[Page]) -> String {
    let mut out = String::from(HEAD);
    let version = env!("CARGO_PKG_VERSION");
    // Writing to a string can't fail; the results are let go.
    let _ = writeln!(out, "  <meta name=\"ocr-system\" content=\"vedm {version}\" />");
    let classes = "ocr_page ocr_carea ocr_line ocrx_word";
    let _ = writeln!(out, "  <meta name=\"ocr-capabilities\" content=\"{classes}\" />");
    let _ = writeln!(out, "  <meta name=\"ocr-number-of-pages\" content=\"{}\" />", pages.len());
    let _ = writeln!(out, "  <!-- {BOXES_OF_WORDS} -->");
    out.push_str(" </head>\n <body>\n");
    for (index, page) in pages.iter().enumerate() {
        write_page(&mut out, index, page);
    }
    out.push_str(" </body>\n</html>\n");
    out
}

fn write_page(out: &mut String, index: usize, page: &Page) {
    let Page { image, number: ppageno, width, height, lines } = page;
    let number = index + 1;
    // Within a title a string stands in double quotes, and a backslash keeps one inside.
    let image = escape(&image.replace('\\', "\\\\").replace('"', "\\\""));
    let _ = writeln!(
        out,
        "  <div class=\"ocr_page\" id=\"page_{number}\" title=\"image &quot;{image}&quot;; \
         bbox 0 0 {width} {height}; ppageno {ppageno}\">"
    );
    for (block, range) in blocks(lines).into_iter().enumerate() {
        let id = format!("{number}_{}", block + 1);
        let bbox = title(around(&lines[range.clone()]));
        let _ = writeln!(out, "   <div class=\"ocr_carea\" id=\"block_{id}\" title=\"{bbox}\">");
        for line in range {
            write_line(out, &format!("{number}_{}", line + 1), &lines[line]);
        }
        out.push_str("   </div>\n");
    }
    out.push_str("  </div>\n");
}

fn write_line(out: &mut String, id: &str, line: &TextLine) {
    let bbox = title(line.bbox);
    let _ = write!(out, "    <span class=\"ocr_line\" id=\"line_{id}\" title=\"{bbox}\">");
    let percent = (confidence(line.confidence) * 100.0).round();
    for (index, word) in words(line).iter().enumerate() {
        let space = if index > 0 { " " } else { "" };
        let (bbox, text) = (title(word.bbox), escape(&word.text));
        let _ = write!(
            out,
            "{space}<span class=\"ocrx_word\" id=\"word_{id}_{}\" \
             title=\"{bbox}; x_wconf {percent}\">{text}</span>",
            index + 1
        );
    }
    out.push_str("</span>\n");
}

fn title([left, top, right, bottom]: [u32; 4]) -> String {
    format!("bbox {left} {top} {right} {bottom}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_pages_blocks_lines_and_words() {
        let line =
            TextLine { bbox: [10, 20, 110, 40], text: "a<b cdefgh".into(), confidence: 0.874 };
        let empty = Page { image: "b.png".into(), number: 4, width: 5, height: 6, lines: vec![] };
        let image = r#"a "1";.png"#.into();
        let page = Page { image, number: 2, width: 300, height: 200, lines: vec![line] };
        let document = hocr(&[page, empty]);
        let body = document.split_once("<body>").unwrap().1;
        let expected = r#"
  <div class="ocr_page" id="page_1" title="image &quot;a \&quot;1\&quot;;.png&quot;; bbox 0 0 300 200; ppageno 2">
   <div class="ocr_carea" id="block_1_1" title="bbox 10 20 110 40">
    <span class="ocr_line" id="line_1_1" title="bbox 10 20 110 40"><span class="ocrx_word" id="word_1_1_1" title="bbox 10 20 40 40; x_wconf 87">a&lt;b</span> <span class="ocrx_word" id="word_1_1_2" title="bbox 50 20 110 40; x_wconf 87">cdefgh</span></span>
   </div>
  </div>
  <div class="ocr_page" id="page_2" title="image &quot;b.png&quot;; bbox 0 0 5 6; ppageno 4">
  </div>
 </body>
</html>
"#;
        assert_eq!(body, expected);
    }

    #[test]
    fn the_head_names_the_system_and_what_it_can() {
        let document = hocr(&[]);
        for part in [
            "<meta name=\"ocr-system\" content=\"vedm ",
            "<meta name=\"ocr-capabilities\" content=\"ocr_page ocr_carea ocr_line ocrx_word\" />",
            "<meta name=\"ocr-number-of-pages\" content=\"0\" />",
            "in proportion to counts of characters. -->",
        ] {
            assert!(document.contains(part), "{part} is missing in {document}");
        }
    }
}
