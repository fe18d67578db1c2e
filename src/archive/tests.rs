#![allow(clippy::unwrap_used)]

use std::io::Write;

use super::*;

/// The members that the archive of the tests is made of; what is wanted of them is told by name.
const FILES: &[(&str, &[u8])] = &[
    ("./b/2.png", b"two"),
    ("b/2.txt", b"a caption"),
    ("1.png", b"one"),
    (".hidden.png", b"hidden"),
    ("__MACOSX/1.png", b"not for us"),
    (
        "long/long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-long-\
      long-long-long-long-long-long-name.png",
        b"long",
    ),
    ("empty.png", b""),
];

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(files: &[(&str, &[u8])], method: ::zip::CompressionMethod) -> Vec<u8> {
    let mut writer = ::zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = ::zip::write::SimpleFileOptions::default().compression_method(method);
    for (name, bytes) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn wanted(name: &str, _: &[u8]) -> bool {
    name.ends_with(".png")
}

/// Opens bytes as an archive of the kind that they say they are.
fn opened(bytes: &[u8]) -> Vec<Result<Member>> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let head = &bytes[..bytes.len().min(512)];
    open(file.path(), kind(head).unwrap(), wanted, 1 << 20).unwrap().collect()
}

#[test]
fn archives_of_all_kinds_give_the_same_members() {
    let tar = tar_of(FILES);
    let archives = [
        gzip(&tar),
        tar,
        zip_of(FILES, ::zip::CompressionMethod::Stored),
        zip_of(FILES, ::zip::CompressionMethod::Deflated),
    ];
    for (number, bytes) in archives.iter().enumerate() {
        let members: Vec<Member> = opened(bytes).into_iter().map(Result::unwrap).collect();
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names[..2], ["b/2.png", "1.png"], "archive {number}");
        assert!(names[2].starts_with("long/") && names[2].len() > 100);
        assert_eq!(names[3..], ["empty.png"]);
        // In another order than they lie.
        let texts: Vec<Vec<u8>> =
            members.iter().rev().map(|member| member.read(100).unwrap()).collect();
        assert_eq!(texts, [&b""[..], b"long", b"one", b"two"], "archive {number}");
    }
}

#[test]
fn kinds_are_told_by_content_and_promised_by_name() {
    assert_eq!(kind(&tar_of(FILES)[..512]), Some(Kind::Tar));
    assert_eq!(kind(b"PK\x03\x04rest"), Some(Kind::Zip));
    assert_eq!(kind(&[0; 512]), None);
    assert_eq!(kind(&gzip(b"only a text")), None);
    let names = [
        ("a/b.tar", Some(Kind::Tar)),
        ("A.TGZ", Some(Kind::TarGz)),
        ("x.tar.gz", Some(Kind::TarGz)),
        ("comic.cbz", Some(Kind::Zip)),
        ("tar", None),
        ("x.gz", None),
    ];
    for (name, expected) in names {
        assert_eq!(kind_by_name(Path::new(name)), expected, "{name}");
    }
}

#[test]
fn hard_links_give_the_bytes_of_their_target() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    builder.append_data(&mut header, "one.png", &b"one"[..]).unwrap();
    for target in ["one.png", "nowhere.png"] {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "link.png", target).unwrap();
    }
    let members = opened(&builder.into_inner().unwrap());
    let texts: Vec<String> = told(members).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one", "one", "a hard link to nowhere"]);
}

/// What reading each member gives: its name, and its bytes or why there are none.
fn told(members: Vec<Result<Member>>) -> Vec<(String, String)> {
    let told = members.into_iter().map(|member| {
        let member = member.unwrap();
        let text = match member.read(1000) {
            Ok(bytes) => String::from_utf8(bytes).unwrap(),
            Err(error) => error.to_string(),
        };
        (member.name, text)
    });
    told.collect()
}

#[test]
fn a_hard_link_may_lead_to_a_hidden_member() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    builder.append_data(&mut header, ".hidden/one.png", &b"one"[..]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Link);
    header.set_size(0);
    builder.append_link(&mut header, "link.png", "./.hidden/one.png").unwrap();
    let members = opened(&builder.into_inner().unwrap());
    assert_eq!(told(members), [("link.png".to_string(), "one".to_string())]);
}

/// Contiguous files are files, and the holes of sparse ones are not read, packed or not.
#[test]
fn files_of_other_types_are_read_or_told() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Continuous);
    header.set_size(3);
    builder.append_data(&mut header, "whole.png", &b"one"[..]).unwrap();
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::GNUSparse);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(3);
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(3);
    builder.append_data(&mut header, "gnu.png", &b"two"[..]).unwrap();
    let records = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"p.png"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(1024);
    builder.append_data(&mut header, "GNUSparseFile.7/p.png", &[b'1'; 1024][..]).unwrap();
    let mut header = ::tar::Header::new_ustar();
    header.set_size(4);
    builder.append_data(&mut header, "last.png", &b"last"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    let sparse = "a sparse file, which is not read out of an archive; unpack it first";
    let expected =
        [("whole.png", "one"), ("gnu.png", sparse), ("p.png", sparse), ("last.png", "last")];
    for bytes in [gzip(&tar), tar] {
        let expected = expected.map(|(name, text)| (name.to_string(), text.to_string()));
        assert_eq!(told(opened(&bytes)), expected);
    }
}

/// Of two members with one name a zip gives the last, as unpacking does, and tells of the first.
#[test]
fn a_name_that_comes_twice_is_told() {
    let files: &[(&str, &[u8])] =
        &[("a.png", b"first"), ("b.png", b"b"), ("c.png", b"other"), ("c.txt", b"")];
    let mut zip = zip_of(files, ::zip::CompressionMethod::Stored);
    // The writer of the tests refuses what others write.
    while let Some(at) = zip.windows(5).position(|bytes| bytes == b"c.png") {
        zip[at] = b'a';
    }
    // Something in front, as in an archive that unpacks itself.
    for front in [&b""[..], b"#!/bin/sh\n"] {
        let bytes = [front, &zip].concat();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let members = open(file.path(), Kind::Zip, wanted, 1 << 20).unwrap().collect();
        let told = told(members);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.png", "a.png", "b.png"]);
        assert_eq!(told[0].1, "other");
        assert!(told[1].1.starts_with("a member behind it has the same name"), "{told:?}");
    }
    let tar = tar_of(&[("a.png", b"first"), ("a.png", b"other")]);
    for bytes in [gzip(&tar), tar] {
        let texts: Vec<String> = told(opened(&bytes)).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["first", "other"]);
    }
}

#[test]
fn more_than_the_limit_is_refused_whatever_the_archive_says() {
    let zeros = vec![0; 3 << 20];
    let files: &[(&str, &[u8])] = &[("bomb.png", &zeros), ("small.png", b"small")];
    let mut zip = zip_of(files, ::zip::CompressionMethod::Deflated);
    // The directory lies: the bomb says that it has 9 bytes.
    let mark = zip.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    let first = zip[..mark].windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    zip[first + 24..first + 28].copy_from_slice(&9u32.to_le_bytes());
    for bytes in [tar_of(files), gzip(&tar_of(files)), zip] {
        let members = opened(&bytes);
        let error = members[0].as_ref().map(|member| member.read(1 << 20)).unwrap().unwrap_err();
        assert!(format!("{error:#}").contains("1 MiB"), "{error:#}");
        assert_eq!(members[1].as_ref().unwrap().read(1 << 20).unwrap(), b"small");
    }
}

#[test]
fn damage_is_a_sentence() {
    let tar = tar_of(&[("a.png", &[7; 2000]), ("b.png", &[8; 2000])]);
    // The second member is cut.
    let members = opened(&tar[..512 + 2048 + 512 + 700]);
    assert_eq!(members[0].as_ref().unwrap().read(5000).unwrap(), [7; 2000]);
    let error = members[1].as_ref().unwrap().read(5000).unwrap_err();
    assert_eq!(error.to_string(), "the archive ends inside of it");
    // The second header is overwritten.
    let mut damaged = tar.clone();
    damaged[512 + 2048..][..300].fill(0x55);
    let members = opened(&damaged);
    assert_eq!(members.len(), 2);
    let error = members[1].as_ref().err().unwrap().to_string();
    assert!(error.starts_with("damaged tar archive"), "{error}");
    // A zip without its directory, which stands at its end.
    let zip = zip_of(FILES, ::zip::CompressionMethod::Stored);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&zip[..zip.len() / 2]).unwrap();
    let error = open(file.path(), Kind::Zip, wanted, 100).err().unwrap().to_string();
    assert!(error.starts_with("damaged zip archive"), "{error}");
    // Compressed bytes are changed: the checksum finds it.
    let mut zip = zip_of(&[("a.png", &[7; 500])], ::zip::CompressionMethod::Stored);
    let at = zip.windows(4).position(|bytes| bytes == [7; 4]).unwrap();
    zip[at + 9] = 8;
    let error = opened(&zip)[0].as_ref().unwrap().read(5000).unwrap_err().to_string();
    assert!(error.starts_with("damaged zip archive"), "{error}");
}

/// Gigabytes of a name, or of records about a member, are a few compressed kilobytes.
#[test]
fn names_and_headers_have_a_limit() {
    for kind in [b'x', b'L', b'K'] {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::new(kind));
        header.set_size(64 << 20);
        header.set_cksum();
        let mut bytes = tar_of(&[("first.png", b"first")]);
        // Without the end mark.
        bytes.truncate(1024);
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + (64 << 20), b'7');
        bytes.extend(tar_of(&[("a.png", b"a")]));
        for bytes in [gzip(&bytes), bytes] {
            let members = opened(&bytes);
            assert_eq!(members[0].as_ref().unwrap().read(100).unwrap(), b"first");
            let error = members[1].as_ref().err().unwrap().to_string();
            assert_eq!(error, "damaged tar archive (names and headers without end)");
            assert_eq!(members.len(), 2);
        }
    }
}

/// What lies between two members is no header, however large it is.
#[test]
fn large_members_are_passed_over() {
    let large = vec![7; 5 << 20];
    let files: &[(&str, &[u8])] =
        &[("a.bin", &large), ("a.png", b"a"), ("b.png", &large), ("c.png", b"c")];
    let tar = tar_of(files);
    for bytes in [gzip(&tar), tar, zip_of(files, ::zip::CompressionMethod::Deflated)] {
        let members: Vec<Member> = opened(&bytes).into_iter().map(Result::unwrap).collect();
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["a.png", "b.png", "c.png"]);
        assert_eq!(members[2].read(10).unwrap(), b"c");
    }
}
