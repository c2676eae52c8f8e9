/*
 * uuid.c
 *		Event ids: UUIDs of version 7 (RFC 9562), as text.
 */
#include "eventsrc.h"

#include <time.h>

#include "append/append.h"

/* random bytes that are fetched at a time; each is used once */
#define RANDOM_BYTES	256

/*
 * es_uuid_v7 makes a UUID of version 7: milliseconds, 12 bits of their
 * fraction so that a backend's ids ascend (RFC 9562, section 6.2, method 3),
 * and 62 random bits.
 */
text *
es_uuid_v7(void)
{
	static const char digits[] = "0123456789abcdef";
	static uint64 last = 0;
	static unsigned char random[RANDOM_BYTES];
	static int	random_used = RANDOM_BYTES;
	struct timespec now;
	uint64		stamp;			/* 48 bits of milliseconds, 12 of their
								 * fraction */
	unsigned char raw[16];
	text	   *result = palloc(VARHDRSZ + 36);
	char	   *out = VARDATA(result);

	clock_gettime(CLOCK_REALTIME, &now);
	stamp = ((uint64) now.tv_sec * 1000 + now.tv_nsec / 1000000) << 12 |
		((uint64) (now.tv_nsec % 1000000) << 12) / 1000000;
	if (stamp <= last)
		stamp = last + 1;
	last = stamp;

	if (random_used == RANDOM_BYTES)
	{
		if (!pg_strong_random(random, RANDOM_BYTES))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random bits for an event id")));
		random_used = 0;
	}
	memcpy(raw + 8, random + random_used, 8);
	random_used += 8;
	for (int i = 0; i < 6; i++)
		raw[i] = (unsigned char) (stamp >> (52 - 8 * i));
	raw[6] = 0x70 | ((stamp >> 8) & 0x0F);
	raw[7] = stamp & 0xFF;
	raw[8] = 0x80 | (raw[8] & 0x3F);

	for (int i = 0; i < 16; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[raw[i] >> 4];
		*out++ = digits[raw[i] & 0x0F];
	}
	SET_VARSIZE(result, VARHDRSZ + 36);
	return result;
}
