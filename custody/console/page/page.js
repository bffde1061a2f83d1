"use strict";
const asked = JSON.parse(document.getElementById("asked").textContent);
const button = document.getElementById("sign");
const said = document.getElementById("said");

function bytes(text) {
  const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(plain, (letter) => letter.charCodeAt(0));
}

function text(buffer) {
  const letters = Array.from(new Uint8Array(buffer), (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

async function approve() {
  const credential = await navigator.credentials.get({
    publicKey: {
      challenge: bytes(asked.challenge),
      rpId: asked.rp_id,
      allowCredentials: [{ type: "public-key", id: bytes(asked.credential_id) }],
      userVerification: "required",
    },
  });
  return {
    authenticator_data: text(credential.response.authenticatorData),
    client_data: text(credential.response.clientDataJSON),
    signature: text(credential.response.signature),
  };
}

async function enrol() {
  const credential = await navigator.credentials.create({
    publicKey: {
      challenge: bytes(asked.challenge),
      rp: { id: asked.rp_id, name: "Strongroom" },
      user: { id: bytes(asked.user_id), name: asked.name, displayName: asked.name },
      pubKeyCredParams: asked.algorithms.map((alg) => ({ type: "public-key", alg })),
      authenticatorSelection: { userVerification: "required", residentKey: "discouraged" },
      attestation: "none",
    },
  });
  return {
    attestation: text(credential.response.attestationObject),
    client_data: text(credential.response.clientDataJSON),
  };
}

async function act() {
  button.disabled = true;
  said.textContent = "Your authenticator asks you now.";
  try {
    const answer = await (asked.credential_id ? approve() : enrol());
    const response = await fetch(location.pathname, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(answer),
    });
    const result = await response.json();
    said.textContent = result.said;
    button.disabled = response.ok;
  } catch (error) {
    said.textContent = "Nothing was signed: " + error.message;
    button.disabled = false;
  }
}

button.addEventListener("click", act);
