//! Non-hardened BIP32 derivation of a joint key: the sum of the shifts on the way from it to a child.

use cggmp24::generic_ec::{Point, Scalar};
use cggmp24::hd_wallet::{slip10, ExtendedPublicKey, NonHardenedIndex};
use cggmp24::supported_curves::Secp256k1;

use crate::session::Failure;

/// A child of a joint key.
pub struct Child {
    /// What is added to the joint secret.
    pub shift: Scalar<Secp256k1>,
    /// 33 bytes, SEC 1 compressed.
    pub key: Vec<u8>,
    pub chain_code: [u8; 32],
}

/// The child at `path` (each index below 2**31) of a key of 33 bytes and its chain code (BIP32).
pub fn child(key: &[u8], chain_code: [u8; 32], path: &[u32]) -> Result<Child, Failure> {
    let public_key = Point::from_bytes(key).map_err(|_| Failure::Input("not a compressed public key".into()))?;
    let mut parent = ExtendedPublicKey::<Secp256k1> { public_key, chain_code };
    let mut shift = Scalar::zero();
    for index in path {
        let index = NonHardenedIndex::try_from(*index)
            .map_err(|_| Failure::Input(format!("index {index} is hardened: nobody has the key for that")))?;
        let step = slip10::derive_public_shift(&parent, index);
        shift = shift + step.shift;
        parent = step.child_public_key;
    }
    Ok(Child { shift, key: parent.public_key.to_bytes(true).to_vec(), chain_code: parent.chain_code })
}
