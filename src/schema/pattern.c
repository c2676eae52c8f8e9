/*
 * pattern.c
 *		Regular expressions of ECMA 262, as JSON Schema has them, for
 *		PostgreSQL's engine, which can be cancelled and does not overrun the
 *		stack.
 */
#include "eventsrc.h"

#include "catalog/pg_collation.h"
#include "lib/stringinfo.h"
#include "regex/regex.h"
#include "utils/builtins.h"

#include "schema/json_schema.h"

/*
 * translate_pattern writes a pattern as PostgreSQL reads it.  Most is the same; what
 * differs is the meaning of some escapes, of "." and of "[" in brackets.
 */
static void
translate_pattern(StringInfo to, const char *from, int length)
{
	bool		bracket = false;

	appendStringInfoString(to, "(?:");	/* so that no director or option
										 * begins it */
	for (int i = 0; i < length; i++)
	{
		char		c = from[i];

		if (c == '\\' && i + 1 < length)
		{
			char		next = from[++i];

			if (next == 'b')
				appendStringInfoString(to, bracket ? "\\u0008" : "\\y");
			else if (next == 'B' && !bracket)
				appendStringInfoString(to, "\\Y");
			else if (next == 'x' && i + 2 < length)
			{
				appendStringInfo(to, "\\u00%c%c", from[i + 1], from[i + 2]);
				i += 2;
			}
			else if (strchr("aAemMyYZ", next) != NULL)
				appendStringInfoChar(to, next); /* mean themselves */
			else if (next == '0')
				appendStringInfoString(to, "\\u0000");
			else if (next == 'd')
				appendStringInfoString(to, bracket ? "0-9" : "[0-9]");
			else if (next == 'D' && !bracket)
				appendStringInfoString(to, "[^0-9]");
			else if (next == 'w')
				appendStringInfoString(to, bracket ? "A-Za-z0-9_" : "[A-Za-z0-9_]");
			else if (next == 'W' && !bracket)
				appendStringInfoString(to, "[^A-Za-z0-9_]");
			else if ((next == 's' || next == 'S') && !bracket)
				appendStringInfo(to, "[%s\\t\\n\\v\\f\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]",
								 next == 'S' ? "^" : "");
			else
			{
				appendStringInfoChar(to, '\\');
				appendStringInfoChar(to, next);
			}
		}
		else if (bracket)
		{
			if (c == ']')
				bracket = false;
			if (c == '[')
				appendStringInfoChar(to, '\\');
			appendStringInfoChar(to, c);
		}
		else if (c == '.')
			appendStringInfoString(to, "[^\\n\\r]");
		else if (c == '[')
		{
			bracket = true;
			appendStringInfoChar(to, c);
			if (i + 1 < length && from[i + 1] == '^')
				appendStringInfoChar(to, from[++i]);
		}
		else
			appendStringInfoChar(to, c);
	}
	appendStringInfoChar(to, ')');
}

/*
 * es_pattern_make makes a pattern ready for es_pattern_matches(); raises an
 * error if it is none.
 */
text *
es_pattern_make(const char *pattern, int length, const EsJsonPath *path)
{
	StringInfoData translated;
	text	   *result;
	pg_wchar   *wide;
	regex_t		regex;
	int			status;
	char		reason[100];

	initStringInfo(&translated);
	translate_pattern(&translated, pattern, length);
	result = cstring_to_text_with_len(translated.data, translated.len);

	/* a trial, for an error that names the place */
	wide = palloc((translated.len + 1) * sizeof(pg_wchar));
	status = pg_regcomp(&regex, wide,
						pg_mb2wchar_with_len(translated.data, wide, translated.len),
						REG_ADVANCED | REG_NOSUB, C_COLLATION_OID);
	if (status != REG_OKAY)
	{
		pg_regerror(status, &regex, reason, sizeof(reason));
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_EVENT_TYPE),
				 errmsg("the JSON Schema has an invalid regular expression"),
				 errdetail("At \"%s\": %s.", es_json_path(path), reason),
				 errhint("Patterns are those of JavaScript; not all of its newer notations are known here.")));
	}
	pg_regfree(&regex);
	pfree(wide);
	pfree(translated.data);
	return result;
}

/*
 * es_pattern_matches tells whether a pattern is found in a string.
 */
bool
es_pattern_matches(text *pattern, const char *value, int length)
{
	return RE_compile_and_execute(pattern, unconstify(char *, value), length,
								  REG_ADVANCED | REG_NOSUB, C_COLLATION_OID, 0, NULL);
}
