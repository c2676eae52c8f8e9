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
#include "utils/builtins.h"
#include "utils/timestamp.h"

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
			es_write_int(out, DatumGetInt64(value));
			break;
		case ES_ATT_SCHEMA_VERSION:
			es_write_int(out, DatumGetInt32(value));
			break;
		case ES_ATT_TRANSACTION:
			appendStringInfo(out, UINT64_FORMAT,
							 U64FromFullTransactionId(FullTransactionIdFromU64(DatumGetUInt64(value))));
			break;
		case ES_ATT_RECORDED_AT:
		case ES_ATT_OCCURRED_AT:
			es_write_time(out, DatumGetTimestampTz(value));
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
es_write_text(StringInfo out, const char *text, int length)
{
	char	   *converted;

	if (GetDatabaseEncoding() == PG_UTF8)
	{
		appendBinaryStringInfo(out, text, length);
		return;
	}
	converted = pg_server_to_any(text, length, PG_UTF8);
	if (converted == text)
		appendBinaryStringInfo(out, text, length);
	else
		appendStringInfoString(out, converted);
}

/*
 * es_write_json_string appends UTF-8 as a JSON string.
 */
void
es_write_json_string(StringInfo out, const char *text, int length)
{
	const char *end = text +length;

	appendStringInfoCharMacro(out, '"');
	while (text <end)
	{
		const char *from = text;

		while (text <end && (unsigned char) *text >=' ' && *text !='"' && *text !='\\')
			text	  ++;

		appendBinaryStringInfo(out, from, text -from);
		if (text == end)
			break;
		switch (*text)
		{
			case '"':
				appendStringInfoString(out, "\\\"");
				break;
			case '\\':
				appendStringInfoString(out, "\\\\");
				break;
			case '\b':
				appendStringInfoString(out, "\\b");
				break;
			case '\f':
				appendStringInfoString(out, "\\f");
				break;
			case '\n':
				appendStringInfoString(out, "\\n");
				break;
			case '\r':
				appendStringInfoString(out, "\\r");
				break;
			case '\t':
				appendStringInfoString(out, "\\t");
				break;
			default:
				appendStringInfo(out, "\\u%04x", (unsigned char) *text);
		}
		text	  ++;
	}
	appendStringInfoCharMacro(out, '"');
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
 * es_write_jsonb appends a jsonb value as JSON text.
 */
void
es_write_jsonb(StringInfo out, Datum value)
{
	Jsonb	   *jsonb = DatumGetJsonbP(value);

	if (GetDatabaseEncoding() == PG_UTF8)
		(void) JsonbToCString(out, &jsonb->root, VARSIZE(jsonb));
	else
	{
		StringInfoData text;

		initStringInfo(&text);
		(void) JsonbToCString(&text, &jsonb->root, VARSIZE(jsonb));
		es_write_text(out, text.data, text.len);
	}
}

/*
 * es_write_time appends a time as RFC 3339 has it, in UTC:
 * 2024-06-20T10:30:00.123456Z.
 */
void
es_write_time(StringInfo out, TimestampTz time)
{
	struct pg_tm tm;
	fsec_t		fsec;
	char text[] = "0000-00-00T00:00:00.000000Z";

	if (TIMESTAMP_NOT_FINITE(time))
	{
		appendStringInfoString(out, TIMESTAMP_IS_NOBEGIN(time) ? "-infinity" : "infinity");
		return;
	}
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
	write_digits(text, tm.tm_year, 4);
	write_digits(text +5, tm.tm_mon, 2);
	write_digits(text +8, tm.tm_mday, 2);
	write_digits(text +11, tm.tm_hour, 2);
	write_digits(text +14, tm.tm_min, 2);
	write_digits(text +17, tm.tm_sec, 2);
	write_digits(text +20, fsec, 6);
	appendBinaryStringInfo(out, text, sizeof(text) - 1);
}

/*
 * es_write_int appends a number.
 */
void
es_write_int(StringInfo out, int64 number)
{
	enlargeStringInfo(out, MAXINT8LEN + 1);
	out->len += pg_lltoa(number, out->data + out->len);
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
