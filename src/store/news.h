/*
 * news.h
 *		Who waits for the safe position to move, and who wakes them.
 */
#ifndef EVENTSRC_NEWS_H
#define EVENTSRC_NEWS_H

#include "store/position.h"

extern void es_news_init(EsDatabase *db);
extern void es_news_announce(EsDatabase *db);
extern int64 es_news_wait(int64 after, double timeout_ms, uint32 wait_event);

#endif							/* EVENTSRC_NEWS_H */
