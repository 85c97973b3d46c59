-- The account of limits in Redis: the rules of _limits/ledger.py, in one script for a reservation.
--
-- KEYS: the epochs of limits and of keys, then for each claim the hash of its account, and the sorted
--       set of its leases, by expiry.
-- ARGV: the operation, the request, the life of a lease, the time or 0 for Redis' own clock, "known"
--       if the epoch of limits has to be the next argument, then for each claim eight numbers:
--       kind (1 bucket, 2 calendar, 3 concurrent), limit, begin, length, leased, amount, and for
--       "settle" the actual use of the request and its period.
-- Times are microseconds since 1970. A lease is "request:amount:period".
-- The answer: both epochs, the number of the claim that is refused (0 for none, -1 if the epoch of
--       limits is another), the time to wait, and for each claim used, remaining, reset, period.

local operation, request, life = ARGV[1], ARGV[2], tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if now == 0 then
  local time = redis.call("TIME")
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- A server that has lost its keys starts new epochs.
local epochs = redis.call("MGET", KEYS[1], KEYS[2])
for index = 1, 2 do
  if not epochs[index] then
    epochs[index] = request .. ":" .. string.format("%.0f", now)
    redis.call("SET", KEYS[index], epochs[index])
  end
end
local answer = {epochs[1], epochs[2], "0", "0"}
if ARGV[5] == "known" and ARGV[6] ~= epochs[1] then
  answer[3] = "-1"
  return answer
end

local BUCKET, CALENDAR, CONCURRENT = 1, 2, 3
local FIRST, FIELDS = 7, 8

local function whole(number)
  return string.format("%.0f", number)
end

local function duration(claim, amount)
  return math.floor(amount * claim.length / math.max(1, claim.limit))
end

local function arrival(claim)
  return math.max(now, claim.account.tat)
end

local function follow_clock(claim)
  local account = claim.account
  local jump = account.seen - now
  if claim.kind == BUCKET and jump > claim.length then
    account.tat = account.tat - jump
    account.seen = now
    claim.changed = true
  end
end

local function taken(claim)
  local account = claim.account
  if claim.kind == CALENDAR and account.period < claim.begin then return 0 end
  return account.used + account.held
end

local function settle(claim, reserved, actual, period)
  local account = claim.account
  if claim.kind == BUCKET then
    account.tat = account.tat + duration(claim, actual) - duration(claim, reserved)
  elseif claim.kind == CONCURRENT then
    account.held = account.held - reserved
  elseif account.period == period then
    account.held = account.held - reserved
    account.used = account.used + actual
  end
  claim.changed = true
end

local function load(number)
  local first = FIRST + (number - 1) * FIELDS
  local claim = {
    key = KEYS[2 * number + 1],
    leases = KEYS[2 * number + 2],
    kind = tonumber(ARGV[first]),
    limit = tonumber(ARGV[first + 1]),
    begin = tonumber(ARGV[first + 2]),
    length = tonumber(ARGV[first + 3]),
    leased = ARGV[first + 4] == "1",
    amount = tonumber(ARGV[first + 5]),
    actual = tonumber(ARGV[first + 6]),
    period = tonumber(ARGV[first + 7]),
    account = {},
  }
  local stored = redis.call("HMGET", claim.key, "tat", "seen", "used", "held", "period")
  for index, name in ipairs({"tat", "seen", "used", "held", "period"}) do
    claim.account[name] = tonumber(stored[index] or 0)
  end
  return claim
end

local function expire(claim)
  if not claim.leased then return end
  local over = redis.call("ZRANGEBYSCORE", claim.leases, "-inf", now)
  for _, lease in ipairs(over) do
    local _, amount, period = string.match(lease, "^(.*):(%d+):(%d+)$")
    settle(claim, tonumber(amount), 0, tonumber(period))
    redis.call("ZREM", claim.leases, lease)
  end
end

local function save(claim)
  local account = claim.account
  redis.call(
    "HSET", claim.key,
    "tat", whole(account.tat), "seen", whole(account.seen), "used", whole(account.used),
    "held", whole(account.held), "period", whole(account.period)
  )
  -- Long after it is empty. A calendar period ends at its end, whatever the clock says. A bucket may
  -- owe more than it holds.
  local owed = math.max(0, account.tat - now)
  local seconds = math.ceil((owed + 2 * claim.length + 2 * life) / 1000000)
  redis.call("EXPIRE", claim.key, seconds)
  if claim.leased then redis.call("EXPIRE", claim.leases, seconds) end
end

local claims = {}
for number = 1, #KEYS / 2 - 1 do
  claims[number] = load(number)
  follow_clock(claims[number])
  if operation == "reserve" or operation == "read" then expire(claims[number]) end
end

if operation == "reserve" then
  local worst, wait = 0, 0
  for number, claim in ipairs(claims) do
    local late = 0
    if claim.amount > claim.limit then
      late = -1
    elseif claim.kind == BUCKET then
      late = math.max(0, arrival(claim) + duration(claim, claim.amount) - now - claim.length)
    elseif taken(claim) + claim.amount > claim.limit then
      late = 1000000
      if claim.kind == CALENDAR then late = math.max(1, claim.begin + claim.length - now) end
    end
    if late == -1 then
      if wait >= 0 then worst, wait = number, -1 end
    elseif wait >= 0 and late > wait then
      worst, wait = number, late
    end
  end
  answer[3], answer[4] = whole(worst), whole(wait)
  if worst == 0 then
    for _, claim in ipairs(claims) do
      local account = claim.account
      if claim.kind == BUCKET then
        account.tat = arrival(claim) + duration(claim, claim.amount)
        account.seen = now
      else
        if claim.kind == CALENDAR and account.period < claim.begin then
          account.used, account.held, account.period = 0, 0, claim.begin
        end
        account.held = account.held + claim.amount
      end
      claim.changed = true
      if claim.leased then
        local lease = request .. ":" .. whole(claim.amount) .. ":" .. whole(account.period)
        redis.call("ZADD", claim.leases, now + life, lease)
      end
    end
  end
elseif operation == "settle" then
  for _, claim in ipairs(claims) do
    local reserved = claim.amount
    if claim.leased then
      local lease = request .. ":" .. whole(claim.amount) .. ":" .. whole(claim.period)
      if redis.call("ZREM", claim.leases, lease) == 0 then reserved = 0 end
    end
    settle(claim, reserved, claim.actual, claim.period)
  end
elseif operation == "renew" then
  for _, claim in ipairs(claims) do
    local lease = request .. ":" .. whole(claim.amount) .. ":" .. whole(claim.period)
    redis.call("ZADD", claim.leases, "XX", now + life, lease)
    claim.changed = true
  end
end

for _, claim in ipairs(claims) do
  if claim.changed then save(claim) end
  local used, reset = taken(claim), 0
  local remaining = math.max(0, claim.limit - used)
  if claim.kind == BUCKET then
    reset = arrival(claim) - now
    local free = math.max(0, claim.length - reset)
    remaining = math.floor(free * claim.limit / math.max(1, claim.length))
    used = claim.limit - remaining
  elseif claim.kind == CALENDAR then
    reset = claim.begin + claim.length - now
  end
  answer[#answer + 1] = whole(used)
  answer[#answer + 1] = whole(remaining)
  answer[#answer + 1] = whole(reset)
  answer[#answer + 1] = whole(claim.account.period)
end
return answer
