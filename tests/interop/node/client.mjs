// An OHTTP client (RFC 9458) of parts that confonnx did not write: HPKE from `hpke` and `@panva/hpke-noble`,
// Binary HTTP from `bhttp-js`. Only the framing of RFC 9458 is ours, written here a second time from the RFC.
//
//   node client.mjs BASE_URL KEM_ID INNER_PATH   (the inner body, JSON, on standard input)
//
// Prints one line of JSON: {"kem", "status", "fields", "body"}. It verifies no attestation: it tests the wire.
import { BHttpDecoder, BHttpEncoder } from 'bhttp-js'
import { CipherSuite } from 'hpke'
import * as noble from '@panva/hpke-noble'
import { webcrypto as crypto } from 'node:crypto'

const KEMS = { 0x0020: noble.KEM_DHKEM_X25519_HKDF_SHA256, 0x647a: noble.KEM_MLKEM768_X25519 }
const [NK, NN] = [16, 12] // AES-128-GCM
const text = new TextEncoder()

function concat(...parts) {
  return new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))))
}

// RFC 9458 §3.1 and §3.2: a list of key configurations, each behind its length
function keyConfigs(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const configs = []
  for (let at = 0; at < bytes.length; ) {
    const end = at + 2 + view.getUint16(at)
    const kemId = view.getUint16(at + 3)
    const publicKeyLength = { 0x0020: 32, 0x647a: 1216 }[kemId]
    configs.push({ keyId: bytes[at + 2], kemId, publicKey: bytes.slice(at + 5, at + 5 + publicKeyLength) })
    at = end
  }
  return configs
}

async function hkdfExtract(salt, ikm) {
  const key = await crypto.subtle.importKey('raw', salt, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
  return new Uint8Array(await crypto.subtle.sign('HMAC', key, ikm))
}

async function hkdfExpand(prk, info, length) {
  // one block is enough: 16 and 12 bytes of SHA-256's 32
  const block = await hkdfExtract(prk, concat(text.encode(info), [1]))
  return block.slice(0, length)
}

async function main([baseUrl, kemArgument, innerPath], innerBody) {
  const kemId = Number(kemArgument)
  const listing = await fetch(new URL('.well-known/ohttp-gateway', baseUrl))
  if (listing.headers.get('content-type') !== 'application/ohttp-keys') throw new Error('not application/ohttp-keys')
  const config = keyConfigs(new Uint8Array(await listing.arrayBuffer())).find((c) => c.kemId === kemId)
  if (!config) throw new Error(`the server offers no key for KEM ${kemArgument}`)

  const request = new Request(`https://confonnx.invalid${innerPath}`, {
    method: 'POST',
    headers: { date: new Date().toUTCString(), 'content-type': 'application/json' },
    body: innerBody,
  })
  const plaintext = await new BHttpEncoder().encodeRequest(request)

  // RFC 9458 §4.3
  const suite = new CipherSuite(KEMS[kemId], noble.KDF_HKDF_SHA256, noble.AEAD_AES_128_GCM)
  const header = new Uint8Array([config.keyId, kemId >> 8, kemId & 255, 0, 1, 0, 1])
  const info = concat(text.encode('message/bhttp request'), [0], header)
  const publicKey = await suite.DeserializePublicKey(config.publicKey)
  const { encapsulatedSecret, ctx } = await suite.SetupSender(publicKey, { info })
  const sealed = concat(header, encapsulatedSecret, await ctx.Seal(new Uint8Array(plaintext)))

  const answer = await fetch(new URL('ohttp', baseUrl), {
    method: 'POST',
    headers: { 'content-type': 'message/ohttp-req' },
    body: sealed,
  })
  if (answer.headers.get('content-type') !== 'message/ohttp-res')
    throw new Error(`status ${answer.status}, ${answer.headers.get('content-type')}`)
  const message = new Uint8Array(await answer.arrayBuffer())

  // RFC 9458 §4.4
  const secret = await ctx.Export(text.encode('message/bhttp response'), Math.max(NN, NK))
  const nonce = message.slice(0, Math.max(NN, NK))
  const prk = await hkdfExtract(concat(encapsulatedSecret, nonce), secret)
  const aeadKey = await crypto.subtle.importKey('raw', await hkdfExpand(prk, 'key', NK), 'AES-GCM', false, ['decrypt'])
  const iv = await hkdfExpand(prk, 'nonce', NN)
  const opened = await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, aeadKey, message.slice(nonce.length))
  const response = new BHttpDecoder().decodeResponse(new Uint8Array(opened))
  return {
    kem: kemId,
    status: response.status,
    fields: Object.fromEntries(response.headers),
    body: await response.text(),
  }
}

const chunks = []
for await (const chunk of process.stdin) chunks.push(chunk)
console.log(JSON.stringify(await main(process.argv.slice(2), Buffer.concat(chunks))))
