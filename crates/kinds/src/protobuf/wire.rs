//! Protobuf's wire format: fields of a message, read and written.

/// One field of a message as it is on the wire.
#[derive(Clone, Copy)]
pub enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    pub fn bytes(self) -> Result<&'a [u8], String> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err("proto: wrong wireType".to_owned()),
        }
    }

    pub fn text(self) -> Result<String, String> {
        std::str::from_utf8(self.bytes()?).map(str::to_owned).map_err(|_| "proto: invalid UTF-8".to_owned())
    }

    pub fn number(self) -> Result<u64, String> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err("proto: wrong wireType".to_owned()),
        }
    }
}

pub fn last<'a>(fields: &[(u64, Wire<'a>)], tag: u64) -> Option<Wire<'a>> {
    fields.iter().rev().find(|(t, _)| *t == tag).map(|(_, wire)| *wire)
}

/// The fields of a message, in order.
pub fn message(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let wire = match key & 7 {
            0 => Wire::Number(varint(&mut bytes)?),
            1 => Wire::Number(u64::from_le_bytes(fixed(&mut bytes)?)),
            2 => {
                let length =
                    usize::try_from(varint(&mut bytes)?).map_err(|_| "proto: negative length".to_owned())?;
                let (head, rest) = bytes.split_at_checked(length).ok_or("unexpected EOF")?;
                bytes = rest;
                Wire::Bytes(head)
            }
            5 => Wire::Number(u32::from_le_bytes(fixed(&mut bytes)?).into()),
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        fields.push((key >> 3, wire));
    }
    Ok(fields)
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or("unexpected EOF")?;
    *bytes = rest;
    Ok(*head)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("unexpected EOF")?;
        *bytes = rest;
        if shift < 64 {
            value |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("proto: integer overflow".to_owned())
}

/// Writes a number of up to ten bytes.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation)]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(value as u8);
}

/// Writes a number field.
pub fn put_number(out: &mut Vec<u8>, tag: u64, value: u64) {
    put_varint(out, tag << 3);
    put_varint(out, value);
}

/// Writes a field of eight fixed bytes.
pub fn put_double(out: &mut Vec<u8>, tag: u64, value: f64) {
    put_varint(out, tag << 3 | 1);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

/// Writes a field of bytes: a string, or a message inside this one.
pub fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
