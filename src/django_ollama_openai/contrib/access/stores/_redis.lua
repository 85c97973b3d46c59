-- The account of limits in Redis: the rules of _limits/ledger.py, in one script for a reservation.
--
-- KEYS: the epochs of limits and of keys, then for each claim the hash of its account, and the sorted
--       set of its leases, by expiry; last, for "settle", the mark of a request that is settled.
-- ARGV: the operation, the request, the time (0 for Redis' own clock) and the life of a lease, "="
--       and the epoch in which limits were read or an empty text, then for each claim eight numbers
--       in one text, which is cheaper for the client: kind (1 bucket, 2 calendar, 3 concurrent),
--       limit, begin, length, leased, amount, and for "settle" the actual use of the request and its
--       period.
-- Times are microseconds since 1970. A lease is "request:amount:period".
-- The answer is a text: both epochs, the number of the claim that is refused (0 for none, -1 if the
--       epoch of limits is another), the time to wait, and for each claim used, remaining, reset and
--       period, unless the operation is "settle" or "renew".

local operation, request = ARGV[1], ARGV[2]
local now, life = string.match(ARGV[3], "(%d+) (%d+)")
now, life = tonumber(now), tonumber(life)
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
if ARGV[4] ~= "" and ARGV[4] ~= "=" .. epochs[1] then
  answer[3] = "-1"
  return table.concat(answer, " ")
end

local BUCKET, CALENDAR, CONCURRENT = 1, 2, 3
-- Seconds for which a settlement may be repeated.
local SETTLED = 600
local NUMBERS = string.rep("(%d+) ?", 8)

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
  local kind, limit, begin, length, leased, amount, actual, period =
    string.match(ARGV[4 + number], NUMBERS)
  local stored = redis.call(
    "HMGET", KEYS[2 * number + 1], "tat", "seen", "used", "held", "period"
  )
  return {
    key = KEYS[2 * number + 1],
    leases = KEYS[2 * number + 2],
    kind = tonumber(kind),
    limit = tonumber(limit),
    begin = tonumber(begin),
    length = tonumber(length),
    leased = leased == "1",
    amount = tonumber(amount),
    actual = tonumber(actual),
    period = tonumber(period),
    account = {
      tat = tonumber(stored[1] or 0),
      seen = tonumber(stored[2] or 0),
      used = tonumber(stored[3] or 0),
      held = tonumber(stored[4] or 0),
      period = tonumber(stored[5] or 0),
    },
  }
end

local function expire(claim)
  if not claim.leased then return end
  local over = redis.call("ZRANGEBYSCORE", claim.leases, "-inf", now)
  for _, lease in ipairs(over) do
    local _, amount, period = string.match(lease, "^(.*):(%d+):(%d+)$")
    settle(claim, tonumber(amount), 0, tonumber(period))
    if operation ~= "read" then redis.call("ZREM", claim.leases, lease) end
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
for number = 1, #ARGV - 4 do
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
elseif operation == "settle" and redis.call("SET", KEYS[#KEYS], "1", "NX", "EX", SETTLED) then
  -- It is repeated when the answer was lost.
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

if operation ~= "read" then
  for _, claim in ipairs(claims) do
    if claim.changed then save(claim) end
  end
end
if operation == "reserve" or operation == "read" then
  for _, claim in ipairs(claims) do
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
    for _, number in ipairs({used, remaining, reset, claim.account.period}) do
      answer[#answer + 1] = whole(number)
    end
  end
end
return table.concat(answer, " ")
