/*
 * arguments.c
 *		Checks of what users pass to the es_* functions.
 */
#include "eventsrc.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "store/arguments.h"

/*
 * es_check_text raises ERRCODE_ES_INVALID_ARGUMENT for a text that is empty or
 * longer than max bytes; name is the argument's.
 */
void
es_check_text(text *value, const char *name, int max)
{
	if (VARSIZE_ANY_EXHDR(value) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be empty", name),
				 errhint("Pass a text of 1 to %d bytes.", max)));
	if (VARSIZE_ANY_EXHDR(value) > max)
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s is too long", name),
				 errdetail("It has %zu bytes; at most %d are allowed.",
						   (size_t) VARSIZE_ANY_EXHDR(value), max),
				 errhint("Put long values into the event's data or metadata.")));
}

/*
 * es_text_arg reads a text argument of an SQL function that must be given.
 */
text *
es_text_arg(FunctionCallInfo fcinfo, int argno, const char *name, int max)
{
	text	   *value;

	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_ES_INVALID_ARGUMENT),
				 errmsg("%s must not be NULL", name),
				 errhint("Pass a text of 1 to %d bytes.", max)));
	value = PG_GETARG_TEXT_PP(argno);
	es_check_text(value, name, max);
	return value;
}
