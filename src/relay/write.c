/*
 * write.c
 *		Values of events as text: plain, in JSON, in URIs.
 *
 * All of it is UTF-8, whatever the database's encoding.
 */
#include "relay/content.h"

#include "access/transam.h"
#include "mb/pg_wchar.h"
#include "pgtime.h"
#include "store/store.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

/* what an escaped character of a JSON string takes at most, and one block of es_write_json_string() */
#define ESCAPED_LENGTH	6
#define BLOCK			((int) sizeof(uint64))

/* a byte, in each byte of a block */
#define EACH(byte)		(UINT64CONST(0x0101010101010101) * (byte))

static inline bool is_plain(uint64 block);
static char *escape(char *to, unsigned char c);
static void write_container(StringInfo out, JsonbContainer *container);
static void write_value(StringInfo out, JEntry entry, char *start, uint32 offset, uint32 length);
static void write_time(StringInfo out, TimestampTz time);
static void write_int(StringInfo out, int64 number);
static void write_digits(char *to, int number, int digits);
static int	disallowed_length(const unsigned char *p, const unsigned char *end);

/*
 * es_write_column appends a column as text; nothing for NULL.
 */
void
es_write_column(StringInfo out, TupleTableSlot *slot, int field)
{
	bool		isnull;
	Datum		value = slot_getattr(slot, field, &isnull);
	text	   *string;

	if (isnull)
		return;
	switch (field)
	{
		case ES_ATT_GLOBAL_POSITION:
		case ES_ATT_VERSION:
			write_int(out, DatumGetInt64(value));
			break;
		case ES_ATT_SCHEMA_VERSION:
			write_int(out, DatumGetInt32(value));
			break;
		case ES_ATT_TRANSACTION:
			appendStringInfo(out, UINT64_FORMAT,
							 U64FromFullTransactionId(FullTransactionIdFromU64(DatumGetUInt64(value))));
			break;
		case ES_ATT_RECORDED_AT:
		case ES_ATT_OCCURRED_AT:
			write_time(out, DatumGetTimestampTz(value));
			break;
		case ES_ATT_DATA:
		case ES_ATT_METADATA:
			es_write_jsonb(out, value);
			break;
		default:
			string = DatumGetTextPP(value);
			es_write_text(out, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
	}
}

/*
 * es_write_text appends a string of the database's encoding.
 */
void
es_write_text(StringInfo out, const char *string, int length)
{
	char	   *converted;

	if (GetDatabaseEncoding() == PG_UTF8)
	{
		es_put(out, string, length);
		return;
	}
	converted = pg_server_to_any(string, length, PG_UTF8);
	if (converted == string)
		es_put(out, string, length);
	else
		appendStringInfoString(out, converted);
}

/*
 * es_write_json_string appends UTF-8 as a JSON string.  Most of it needs no
 * escape and is copied block by block.
 */
void
es_write_json_string(StringInfo out, const char *string, int length)
{
	const char *end = string + length;
	char	   *to;

	if (out->maxlen - out->len <= length + ESCAPED_LENGTH + 2)
		enlargeStringInfo(out, length + ESCAPED_LENGTH + 2);
	to = out->data + out->len;
	*to++ = '"';
	while (string < end)
	{
		const char *next = string + Min(end - string, BLOCK);
		uint64		block;

		if (end - string >= BLOCK)
		{
			memcpy(&block, string, BLOCK);
			if (likely(is_plain(block)))
			{
				memcpy(to, &block, BLOCK);
				to += BLOCK;
				string = next;
				continue;
			}
		}
		for (; string < next; string++)
		{
			unsigned char c = *string;

			if (likely(c >= ' ' && c != '"' && c != '\\'))
			{
				*to++ = c;
				continue;
			}
			to = escape(to, c);
			out->len = to - out->data;
			enlargeStringInfo(out, end - string + ESCAPED_LENGTH + 1);
			to = out->data + out->len;
		}
	}
	*to++ = '"';
	*to = '\0';
	out->len = to - out->data;
}

/*
 * es_write_json_text does so with a string of the database's encoding.
 */
void
es_write_json_text(StringInfo out, const char *string, int length)
{
	if (GetDatabaseEncoding() == PG_UTF8)
		es_write_json_string(out, string, length);
	else
	{
		char	   *converted = pg_server_to_any(string, length, PG_UTF8);

		es_write_json_string(out, converted, converted == string ? length : strlen(converted));
	}
}

/*
 * es_write_uri appends UTF-8 with percent signs, as part of a URI.
 */
void
es_write_uri(StringInfo out, const char *text, int length)
{
	for (int i = 0; i < length; i++)
	{
		unsigned char c = text[i];

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			c == '-' || c == '.' || c == '_' || c == '~')
			appendStringInfoCharMacro(out, c);
		else
			appendStringInfo(out, "%%%02X", c);
	}
}

/*
 * es_write_attribute appends UTF-8 as the value of a CloudEvents attribute,
 * which cannot hold control characters and noncharacters: U+FFFD stands for
 * each.
 */
void
es_write_attribute(StringInfo out, const char *text, int length)
{
	const unsigned char *p = (const unsigned char *) text;
	const unsigned char *end = p + length;

	while (p < end)
	{
		const unsigned char *from = p;
		int			skip = 0;

		while (p < end && (skip = disallowed_length(p, end)) == 0)
			p++;
		appendBinaryStringInfo(out, (const char *) from, p - from);
		if (p < end)
			appendStringInfoString(out, "\xEF\xBF\xBD");
		p += skip;
	}
}

/*
 * es_write_jsonb appends a jsonb value as JSON text, laid out as jsonb's own
 * output is.
 */
void
es_write_jsonb(StringInfo out, Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	if (GetDatabaseEncoding() == PG_UTF8)
		write_container(out, &jsonb->root);
	else
	{
		StringInfoData own;

		initStringInfo(&own);
		write_container(&own, &jsonb->root);
		es_write_text(out, own.data, own.len);
		pfree(own.data);
	}
}

/*
 * is_plain tells whether none of a block's bytes is to be escaped in a JSON
 * string: each term has the high bit of some byte set if one below 0x20, a
 * quote or a backslash is there.
 */
static inline bool
is_plain(uint64 block)
{
	uint64		quote = block ^ EACH('"');
	uint64		backslash = block ^ EACH('\\');

	return ((((block - EACH(0x20)) & ~block) |
			 ((quote - EACH(1)) & ~quote) |
			 ((backslash - EACH(1)) & ~backslash)) & EACH(0x80)) == 0;
}

/*
 * escape writes a character as a JSON string has it escaped, and returns where
 * that ends.
 */
static char *
escape(char *to, unsigned char c)
{
	static const char hex[] = "0123456789abcdef";

	*to++ = '\\';
	switch (c)
	{
		case '\b':
			*to++ = 'b';
			break;
		case '\f':
			*to++ = 'f';
			break;
		case '\n':
			*to++ = 'n';
			break;
		case '\r':
			*to++ = 'r';
			break;
		case '\t':
			*to++ = 't';
			break;
		case '"':
		case '\\':
			*to++ = c;
			break;
		default:
			memcpy(to, "u00", 3);
			to[3] = hex[c >> 4];
			to[4] = hex[c & 0xF];
			to += 5;
	}
	return to;
}

/*
 * write_container writes an object or array, or the scalar that stands at the
 * root in an array of its own.
 */
static void
write_container(StringInfo out, JsonbContainer *container)
{
	int			count = JsonContainerSize(container);
	bool		is_object = JsonContainerIsObject(container);
	bool		is_scalar = JsonContainerIsScalar(container);
	JEntry	   *keys = container->children;
	JEntry	   *values = is_object ? keys + count : keys;
	char	   *start = (char *) (values + count);
	uint32		key = 0;
	uint32		value = is_object ? getJsonbOffset(container, count) : 0;

	check_stack_depth();
	if (!is_scalar)
		es_put(out, is_object ? "{" : "[", 1);
	for (int i = 0; i < count; i++)
	{
		uint32		next = value;

		if (i > 0)
			es_put(out, ", ", 2);
		if (is_object)
		{
			uint32		key_end = key;

			JBE_ADVANCE_OFFSET(key_end, keys[i]);
			es_write_json_string(out, start + key, key_end - key);
			es_put(out, ": ", 2);
			key = key_end;
		}
		JBE_ADVANCE_OFFSET(next, values[i]);
		write_value(out, values[i], start, value, next - value);
		value = next;
	}
	if (!is_scalar)
		es_put(out, is_object ? "}" : "]", 1);
}

/*
 * write_value writes a member of a container whose contents begin at start.
 */
static void
write_value(StringInfo out, JEntry entry, char *start, uint32 offset, uint32 length)
{
	char	   *number;

	if (JBE_ISSTRING(entry))
		es_write_json_string(out, start + offset, length);
	else if (JBE_ISNUMERIC(entry))
	{
		number = DatumGetCString(DirectFunctionCall1(numeric_out, PointerGetDatum(start + INTALIGN(offset))));
		es_put(out, number, strlen(number));
		pfree(number);
	}
	else if (JBE_ISNULL(entry))
		es_put(out, "null", 4);
	else if (JBE_ISBOOL_TRUE(entry))
		es_put(out, "true", 4);
	else if (JBE_ISBOOL_FALSE(entry))
		es_put(out, "false", 5);
	else
		write_container(out, (JsonbContainer *) (start + INTALIGN(offset)));
}

/*
 * write_time appends a time as RFC 3339 has it, in UTC:
 * 2024-06-20T10:30:00.123456Z.  Events that follow each other mostly share the
 * second.
 */
static void
write_time(StringInfo out, TimestampTz time)
{
	static TimestampTz last = 0;	/* a whole second, which stands in written */
	static char written[] = "2000-01-01T00:00:00.000000Z";
	struct pg_tm tm;
	fsec_t		fsec;

	if (TIMESTAMP_NOT_FINITE(time))
	{
		appendStringInfoString(out, TIMESTAMP_IS_NOBEGIN(time) ? "-infinity" : "infinity");
		return;
	}
	if (time < last || time >= last + USECS_PER_SEC)
	{
		if (timestamp2tm(time, NULL, &tm, &fsec, NULL, NULL) != 0)
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					 errmsg("timestamp out of range")));
		if (tm.tm_year < 0 || tm.tm_year > 9999)
		{
			appendStringInfo(out, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year, tm.tm_mon, tm.tm_mday,
							 tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
			return;
		}
		write_digits(written, tm.tm_year, 4);
		write_digits(written + 5, tm.tm_mon, 2);
		write_digits(written + 8, tm.tm_mday, 2);
		write_digits(written + 11, tm.tm_hour, 2);
		write_digits(written + 14, tm.tm_min, 2);
		write_digits(written + 17, tm.tm_sec, 2);
		last = time - fsec;
	}
	write_digits(written + 20, (int) (time - last), 6);
	es_put(out, written, sizeof(written) - 1);
}

/*
 * write_digits writes a number with leading zeros.
 */
static void
write_digits(char *to, int number, int digits)
{
	while (--digits >= 0)
	{
		to[digits] = '0' + number % 10;
		number /= 10;
	}
}

/*
 * write_int appends a number.
 */
static void
write_int(StringInfo out, int64 number)
{
	if (out->maxlen - out->len <= MAXINT8LEN + 1)
		enlargeStringInfo(out, MAXINT8LEN + 1);
	out->len += pg_lltoa(number, out->data + out->len);
}

/*
 * disallowed_length returns the length of the character at p if CloudEvents
 * does not allow it in a string, else 0.
 */
static int
disallowed_length(const unsigned char *p, const unsigned char *end)
{
	if (*p < 0x80)
		return *p < 0x20 || *p == 0x7F ? 1 : 0;
	if (*p == 0xC2 && end - p >= 2)
		return p[1] < 0xA0 ? 2 : 0;
	if (*p == 0xEF && end - p >= 3)
		return (p[1] == 0xB7 && p[2] >= 0x90 && p[2] <= 0xAF) ||
			(p[1] == 0xBF && p[2] >= 0xBE) ? 3 : 0;
	if (*p >= 0xF0 && end - p >= 4)
		return (p[1] & 0x0F) == 0x0F && p[2] == 0xBF && p[3] >= 0xBE ? 4 : 0;
	return 0;
}
