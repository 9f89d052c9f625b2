// Package api puts crid's calls through the faults F86 to F95: deadlines of every length, identical and conflicting calls, messages that nobody should
// send, floods of connections, and clients that vanish.
//
// Each fault of the matrix, and the tests that put it in crid's way; those without its number were there before, in other folders. hack's
// TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F86   every call with every deadline                           TestF86EveryCallWithEveryDeadline, TestRetriesJoin
//	F87   thirty-two identical calls                               TestF87ThirtyTwoStopsAreOneSignal, TestIdenticalRequestsMakeOneObject,
//	                                                               TestAPullIsJoined, TestThirtyTwoPullsLoadEachLayerOnce
//	F88   conflicting pairs of calls                               TestSeeds, TestEverybodyAtOnce
//	F90   calls that a state forbids                               TestF90CallsThatAStateForbids, TestRemoveOfWhatRuns
//	F92   hostile requests                                         TestF92HostileRequests, TestF92FieldsAreNamed, TestF92MessagesThatAreNone,
//	                                                               TestNoRequestBreaksTheServer
//	F93   prefixes of ids                                          TestAnIdMayBeCutShort, TestAnAmbiguousIDIsRefused
//	F94   floods, slow clients, tokens                             TestF94AFloodOfConnections, TestF94TheStreamingPort, TestTokensExpireAfterAMinute
//	F95   clients that vanish, garbage in streams                  TestF95ClientsThatVanish, TestVanishedClientsLeaveNothingBehind,
//	                                                               TestForwardVanishedClientsLeaveNothingBehind,
//	                                                               TestResizeFloodCostsAsManyCallsAsTheShimAnswers
package api
