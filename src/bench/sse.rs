//! Server-sent events out of bytes as they arrive. Pure; knows nothing of what the data says.

/// Reads a stream piece by piece. Lines end in LF or CR LF; comments and all fields but `data` are skipped.
#[derive(Debug, Default)]
pub(super) struct SseReader {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data of an event that has not ended.
    data: Vec<u8>,
    has_data: bool,
}

impl SseReader {
    /// Takes more bytes and hands out the data of every event that is now whole.
    pub(super) fn push(&mut self, bytes: &[u8], mut event: impl FnMut(&str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.end_line(&mut event);
        }
        self.line.extend_from_slice(rest);
    }

    /// Whether the bytes so far end inside an event: a stream that ends here was cut.
    pub(super) fn is_inside_event(&self) -> bool {
        self.has_data || !self.line.is_empty()
    }

    fn end_line(&mut self, event: &mut impl FnMut(&str)) {
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&String::from_utf8_lossy(&self.data));
                self.data.clear();
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        // Keeps the allocation for the next line.
        line.clear();
        self.line = line;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut reader = SseReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            reader.push(piece, |event| events.push(event.to_owned()));
        }
        (events, reader.is_inside_event())
    }

    #[test]
    fn data_comes_out_and_everything_else_is_skipped() {
        let stream =
            b": ping\n\nid: 3\nevent: x\ndata: {\"a\":1}\n\ndata:two\ndata: lines\r\n\r\nretry: 5\n\ndata: [DONE]\n\n";
        assert_eq!(read(&[stream]), (vec!["{\"a\":1}".into(), "two\nlines".into(), "[DONE]".into()], false));
    }

    #[test]
    fn an_event_without_its_empty_line_is_not_handed_out() {
        assert_eq!(read(&[b"data: whole\n\n", b"data: cut"]), (vec!["whole".to_owned()], true));
        assert_eq!(read(&[b"data: cut\n"]), (vec![], true));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            texts in prop::collection::vec("[a-zé你]{0,8}", 0..6),
            cuts in prop::collection::vec(0..200usize, 0..12),
        ) {
            let stream: String = texts.iter().map(|text| format!(": c\r\ndata: {text}\n\n")).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&stream.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&stream.as_bytes()[from..]);
            prop_assert_eq!(read(&pieces), (texts, false));
        }
    }
}
