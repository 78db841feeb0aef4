--- What is known of a connection and its peer, also when it has closed: getters, the session, keying material.

local arguments = require 'dtls.arguments'
local options = require 'dtls.options'

--- A class that has them has `_core()`, its core object, and `_times()`, and calls `_remember` when that object is closed.
---@class dtls.Info
---@field private _known userdata? what remains of the core object that was closed
local Info = {}

--- Keeps what remains of an association that was closed.
---@param known userdata
function Info:_remember(known) self._known = known end

-- What a method of the core's object says, or said when it was closed; a table is the caller's in either case.
local function recall(self, method, ...)
  local known = self:_core() or self._known
  if known then return (known[method](known, ...)) end
end

--- Where its socket is bound, or which address of the server its peer has dialled.
---@return dtls.Address?
function Info:localAddress() return recall(self, 'local_address') end

--- Where its peer is.
---@return dtls.Address?
function Info:remoteAddress() return recall(self, 'remote_address') end

Info.address = Info.localAddress

--- Which protocol the handshake has chosen.
---@return string? 'DTLSv1.2'
function Info:getProtocol() return recall(self, 'protocol') end

--- The suite that the handshake has chosen, by OpenSSL's name and by that of the RFCs.
---@return {name: string, standardName: string, version: string, bits: integer}?
function Info:getCipher() return recall(self, 'cipher') end

--- The peer's certificate, the one that was refused if it was, with Node's fields: subject, issuer, subjectaltname, valid_from,
--- valid_to, serialNumber, fingerprint (SHA-1), fingerprint256, fingerprint512, ext_key_usage, ca, bits, keyType ('EC', 'RSA',
--- 'ED25519', …), pem, raw (DER).
---@param chain boolean? with issuerCertificate, the next one of its chain, in each
---@return dtls.PeerCertificate? nil when the peer has sent none
function Info:getPeerCertificate(chain)
  if chain ~= nil then arguments.insist('getPeerCertificate', 'chain', options.ofType 'boolean', chain) end
  return recall(self, 'peer_certificate', chain)
end

--- The peer's public key, raw (RFC 7250) or that of its certificate, also one that was refused.
---@return dtls.PublicKey? nil when the peer has sent none
function Info:getPeerPublicKey() return recall(self, 'peer_public_key') end

--- Counters: messagesIn messagesOut datagramsIn datagramsOut bytesIn bytesOut retransmits, drops (reason → count); times of
--- the loop's clock, in ms: createdAt, connectedAt, closedAt, and of messages lastReceivedAt,
--- lastSentAt; and, where it has a socket of its own, recvBufferSize and sendBufferSize, what the kernel gave (SO_RCVBUF, SO_SNDBUF).
---@return dtls.ConnectionStats
function Info:stats()
  local stats = recall(self, 'stats') or { drops = {} }
  for name, time in pairs(self:_times()) do stats[name] = time end
  return stats
end

--- Whether the handshake resumed an earlier session instead of proving identities anew.
---@return boolean
function Info:isSessionReused() return recall(self, 'session_reused') or false end

--- What resumes this session (`options.session`). It holds the master secret: keep it as you would keep a key.
---@return string? blob nil before `connection`, and when the server gave nothing to resume with
function Info:getSession()
  local association = self:_core()
  if not association then return nil end
  local _, blob = association:session()
  return blob
end

--- Keys for another protocol, which both ends derive from the handshake (RFC 5705).
---@param length integer 1 to 65536 bytes
---@param label string
---@param context string?
---@return string? bytes
---@return dtls.Error? err
function Info:exportKeyingMaterial(length, label, context)
  arguments.insist('exportKeyingMaterial', 'length', options.wholeNumber(1, 65536), length)
  arguments.insist('exportKeyingMaterial', 'label', options.ofType 'string', label)
  if context ~= nil then arguments.insist('exportKeyingMaterial', 'context', options.ofType 'string', context) end
  local association, err = self:_core()
  if not association then return nil, err end
  return association:export_keying_material(length, label, context)
end

return Info
