#!/bin/sh
# Fetches what lines are drawn with, on Debian: fonts, running text and dictionaries. They are unpacked into a folder, nothing
# is installed.
#
#   examples/lines/material.sh FOLDER
#
# FOLDER/usr/share/fonts, FOLDER/prose and FOLDER/words go to --fonts, --prose and --words of the example.
set -eu

mkdir -p "$1/packages" "$1/prose" "$1/words"
cd "$1"

# Every package of fonts under 4.5 MB: larger ones are those of Chinese, Japanese and Korean.
fonts=$(apt-cache search --names-only '^(fonts-|ttf-)' | cut -d' ' -f1 | sort)
for package in $fonts; do
    size=$(apt-cache show --no-all-versions "$package" | sed -n 's/^Size: //p' | head -n1)
    [ "${size:-0}" -lt 4500000 ] && echo "$package"
done > fonts.list || true
texts="wamerican-large wbritish-large fortunes fortunes-min miscfiles wfrench wngerman wspanish witalian wportuguese wswedish wdutch"

# shellcheck disable=SC2086
(cd packages && apt-get download $(cat ../fonts.list) $texts)
for package in packages/*.deb; do
    dpkg-deb -x "$package" .
done

# Running text: sayings, a gazetteer, laws; no drawings, no source code, nothing enciphered.
for file in usr/share/games/fortunes/*; do
    case "$file" in
    *.dat | *.u8 | */ascii-art | */knghtbrd | */perl | */translate-me) ;;
    *) iconv -f UTF-8 -t UTF-8 -c "$file" > "prose/$(basename "$file")" ;;
    esac
done
for name in misc/airport misc/cities.dat misc/countries misc/languages state/us-constitution state/us-declaration; do
    gzip -dc "usr/share/$name.gz" | iconv -f UTF-8 -t UTF-8 -c > "prose/$(basename "$name")"
done

# Dictionaries, one word a line; the first in the order of their names is English.
for name in american-english-large british-english-large dutch french italian ngerman portuguese spanish; do
    iconv -f UTF-8 -t UTF-8 -c "usr/share/dict/$name" > "words/$name"
done
iconv -f ISO-8859-1 -t UTF-8 usr/share/dict/swedish > words/swedish
gzip -dc usr/share/dict/propernames.gz > words/propernames
