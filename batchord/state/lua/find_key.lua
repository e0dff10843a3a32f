-- Looks an API key up.
-- KEYS  1 the hash of all keys
-- ARGV  1 the key's id
-- Gives what is known of it (false where it is unknown), and how many keys there are.
-- One script, so that a request costs one round trip; two commands that a new key came between would do no harm.
return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HLEN', KEYS[1])}
