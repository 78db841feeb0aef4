--- What is known of a connection and its peer, also when it has closed: getters, the session, keying material.

local arguments = require 'dtls.arguments'
local options = require 'dtls.options'

--- A class that has them has `_recall(method, …)`, what its core object says or said last, and `_core()`, that object.
---@class dtls.Info
local Info = {}

---@return dtls.Address?
function Info:localAddress() return self:_recall('local_address') end

---@return dtls.Address?
function Info:remoteAddress() return self:_recall('remote_address') end

Info.address = Info.localAddress

---@return string? 'DTLSv1.2'
function Info:getProtocol() return self:_recall('protocol') end

---@return {name: string, standardName: string, version: string, bits: integer}?
function Info:getCipher() return self:_recall('cipher') end

--- The peer's certificate, the one that was refused if it was, with Node's fields: subject, issuer, subjectaltname, valid_from,
--- valid_to, serialNumber, fingerprint (SHA-1), fingerprint256, fingerprint512, ext_key_usage, ca, bits, keyType ('EC', 'RSA',
--- 'ED25519', …), pem, raw (DER).
---@param chain boolean? with issuerCertificate, the next one of its chain, in each
---@return dtls.PeerCertificate? nil when the peer has sent none
function Info:getPeerCertificate(chain)
  if chain ~= nil then arguments.insist('getPeerCertificate', 'chain', options.ofType 'boolean', chain) end
  local certificate = self:_recall('peer_certificate', chain)
  if certificate and not chain then certificate.issuerCertificate = nil end
  return certificate or nil
end

--- Whether the handshake resumed an earlier session instead of proving identities anew.
---@return boolean
function Info:isSessionReused() return self:_recall('session_reused') or false end

--- What resumes this session (`options.session`). It holds the master secret: keep it as you would keep a key.
---@return string? blob nil before `connection`, and when the server gave nothing to resume with
function Info:getSession()
  local association = self:_core()
  if not association then return nil end
  local _, blob = association:session()
  return blob
end

--- RFC 5705.
---@param length integer 1 to 65536 bytes
---@param label string
---@param extra string? the context of RFC 5705
---@return string? bytes
---@return dtls.Error? err
function Info:exportKeyingMaterial(length, label, extra)
  arguments.insist('exportKeyingMaterial', 'length', options.wholeNumber(1, 65536), length)
  arguments.insist('exportKeyingMaterial', 'label', options.ofType 'string', label)
  if extra ~= nil then arguments.insist('exportKeyingMaterial', 'context', options.ofType 'string', extra) end
  local association, err = self:_core()
  if not association then return nil, err end
  return association:export_keying_material(length, label, extra)
end

return Info
