/*
 * program_kept.c
 *		What is kept of programs (program.c) from query to query.
 *
 * A query that folds a stream of some hundred events would spend much of its
 * time on making the reducer's program, and on the call that has to come before.
 * So what was made of the reducer's body stays with the backend, for the user
 * and the search_path that it was made for, as long as nothing changed that it
 * came from.  Each query makes its own ExprStates of it, of those expressions
 * that it evaluates.
 */
#include "state/program.h"

#include "miscadmin.h"
#include "utils/memutils.h"

/* so many are kept, those that were used last, unless one is larger than this */
#define MAX_KEPT	32
#define MAX_SIZE	(1024 * 1024)

static EsProgramCode *kept[MAX_KEPT];	/* the last one used comes first */
static int	nkept = 0;

static bool fits(EsProgramCode *code, EsReducer *reducer);
static void forget(int i);

/*
 * es_program_kept returns what is kept of a reducer's body, NULL if there is
 * nothing that is good for this query.
 */
EsProgramCode *
es_program_kept(EsReducer *reducer)
{
	for (int i = 0; i < nkept; i++)
	{
		EsProgramCode *code = kept[i];

		if (code->generation != es_program_generation())
			forget(i--);
		else if (code->function == reducer->function && code->user == GetUserId() &&
				 es_search_path_is(code->path))
		{
			if (!fits(code, reducer))
				return NULL;
			memmove(&kept[1], &kept[0], sizeof(kept[0]) * i);
			kept[0] = code;
			return code;
		}
	}
	return NULL;
}

/*
 * es_program_keep keeps what was made of a reducer's body, in place of what was
 * made of it before.
 */
void
es_program_keep(EsProgramCode *code)
{
	if (code->generation != es_program_generation() ||
		MemoryContextMemAllocated(code->context, true) > MAX_SIZE)
		return;
	for (int i = 0; i < nkept; i++)
	{
		if (kept[i]->generation != code->generation ||
			(kept[i]->function == code->function && kept[i]->user == code->user &&
			 strcmp(kept[i]->search_path, code->search_path) == 0))
			forget(i--);
	}
	if (nkept == MAX_KEPT)
		forget(nkept - 1);
	memmove(&kept[1], &kept[0], sizeof(kept[0]) * nkept);
	kept[0] = code;
	nkept++;
	code->users++;
}

/*
 * es_program_release is called by who used code; the last one frees it.
 */
void
es_program_release(EsProgramCode *code)
{
	if (--code->users == 0)
		MemoryContextDelete(code->context);
}

/*
 * fits tells whether code does what calls of the reducer would do here and now,
 * as far as the catalogs' changes do not tell.
 */
static bool
fits(EsProgramCode *code, EsReducer *reducer)
{
	ListCell   *cell;

	if (code->address != reducer->call.fn_addr || FmgrHookIsNeeded(code->function) ||
		es_program_plpgsql_watched())
		return false;
	/* the user may have left a role */
	foreach(cell, code->functions)
	{
		if (!es_program_may_execute(lfirst_oid(cell)))
			return false;
	}
	return true;
}

/*
 * forget keeps something no longer.
 */
static void
forget(int i)
{
	EsProgramCode *code = kept[i];

	nkept--;
	memmove(&kept[i], &kept[i + 1], sizeof(kept[0]) * (nkept - i));
	es_program_release(code);
}
